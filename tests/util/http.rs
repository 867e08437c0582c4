//! An HTTP server for transfers with a known sum.
//!
//! `GET /bytes/N` gives N bytes that depend on their position; `PUT` takes a body
//! of any length (with `Content-Length` or in chunks) and answers with its
//! sha256.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::host::{Host, Side};
use super::servers::TcpServer;

const BLOCK: usize = 64 * 1024;

/// A server on the host's loopback.
pub(crate) fn start(host: &Host) -> TcpServer {
    start_at(host, Side::Host, Ipv4Addr::LOCALHOST)
}

/// A server at an address of one side.
pub(crate) fn start_at(host: &Host, side: Side, address: impl Into<IpAddr>) -> TcpServer {
    TcpServer::start(host, side, address, serve)
}

/// The sha256 of what `GET /bytes/N` gives.
pub(crate) fn sha256_of_bytes(count: u64) -> String {
    let mut sum = Sum::start();
    write_bytes(count, &mut sum).unwrap();
    sum.finish()
}

/// The sum of these bytes, as sha256sum(1) prints it.
pub(crate) fn sha256_of(bytes: &[u8]) -> String {
    let mut sum = Sum::start();
    sum.write_all(bytes).unwrap();
    sum.finish()
}

/// Writes `count` bytes of which every eight tell their position.
fn write_bytes(count: u64, to: &mut impl Write) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut position = 0;
    while position < count {
        for (word, at) in block.chunks_exact_mut(8).zip((position..).step_by(8)) {
            // The finalizer of splitmix64: no two blocks alike, none compressible.
            let mut mixed = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        }
        let length = BLOCK.min(usize::try_from(count - position).unwrap_or(BLOCK));
        to.write_all(&block[..length])?;
        position += length as u64;
    }
    Ok(())
}

/// sha256sum(1), fed as bytes come.
struct Sum {
    child: Child,
}

impl Sum {
    fn start() -> Self {
        let mut command = Command::new("sha256sum");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self {
            child: command.spawn().expect("sha256sum(1)"),
        }
    }

    fn finish(mut self) -> String {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output().unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .to_owned()
    }
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.child.stdin.as_mut().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Request {
    target: String,
    length: u64,
    chunked: bool,
    asks: bool,
}

fn serve(stream: TcpStream) -> io::Result<()> {
    let mut input = BufReader::with_capacity(BLOCK, stream.try_clone()?);
    let mut output = stream;
    let request = read_head(&mut input)?;
    if let Some(count) = request.target.strip_prefix("/bytes/") {
        let count = count.parse().map_err(io::Error::other)?;
        write!(
            output,
            "HTTP/1.1 200 OK\r\nContent-Length: {count}\r\nConnection: close\r\n\r\n"
        )?;
        return write_bytes(count, &mut output);
    }
    if request.asks {
        output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut sum = Sum::start();
    if request.chunked {
        copy_chunks(&mut input, &mut sum)?;
    } else {
        copy_exactly(&mut input, request.length, &mut sum)?;
    }
    let body = sum.finish();
    let length = body.len();
    write!(
        output,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn read_head(input: &mut impl BufRead) -> io::Result<Request> {
    let mut request = Request::default();
    let mut line = String::new();
    input.read_line(&mut line)?;
    request.target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    loop {
        line.clear();
        input.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok(request);
        };
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("content-length", value) => {
                request.length = value.parse().map_err(io::Error::other)?
            }
            ("transfer-encoding", value) => request.chunked = value == "chunked",
            ("expect", value) => request.asks = value == "100-continue",
            _ => {}
        }
    }
}

fn copy_exactly(input: &mut impl Read, length: u64, to: &mut impl Write) -> io::Result<()> {
    let copied = io::copy(&mut input.take(length), to)?;
    if copied < length {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(())
    }
}

/// A body in chunks (RFC 9112, section 7.1), without trailers.
fn copy_chunks(input: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        input.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        copy_exactly(input, length, to)?;
        line.clear();
        input.read_line(&mut line)?;
        if length == 0 {
            return Ok(());
        }
    }
}
