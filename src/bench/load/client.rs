//! The client: one case, then idle until it is told to end.

use std::io::Write;
use std::sync::mpsc::Receiver;

use super::{LoadError, Outcome, Said, Task, orders, say, tcp, udp};
use crate::bench::cases::Case;

/// Carries out `task` when told to, reports on `out`, and holds its connections
/// until standard input ends. A failure is reported in the same way.
///
/// # Errors
/// It cannot talk with whoever started it.
pub fn run(task: &Task, out: &mut dyn Write) -> Result<(), LoadError> {
    let orders = orders()?;
    say(out, &Said::Started)?;
    next(&orders)?;
    let result = measure(task, &orders, out);
    match &result {
        Ok((outcome, _)) => say(out, &Said::Done(outcome.clone()))?,
        Err(error) => say(out, &Said::Failed(error.to_string()))?,
    }
    // What is measured from outside is measured now.
    next(&orders)
}

fn next(orders: &Receiver<String>) -> Result<(), LoadError> {
    orders
        .recv()
        .map(drop)
        .map_err(|_| LoadError::Nothing("standard input has ended"))
}

/// The outcome, and what has to stay open.
type Measured = (Outcome, Vec<std::net::TcpStream>);

fn measure(
    task: &Task,
    orders: &Receiver<String>,
    out: &mut dyn Write,
) -> Result<Measured, LoadError> {
    tcp::reach(task)?;
    say(out, &Said::Ready)?;
    next(orders)?;
    let outcome = match task.case {
        Case::TcpUp(streams) => tcp::up(task, streams),
        Case::TcpDown(streams) => tcp::down(task, streams),
        Case::TcpRr => tcp::round_trips(task),
        Case::TcpCrr(at_once) => tcp::connections(task, at_once),
        Case::UdpRr => udp::round_trips(task),
        Case::UdpUp(size) => udp::up(task, size),
        Case::UdpDown(size) => udp::down(task, size),
        Case::Flows(count) => return tcp::flows(task, count),
        Case::Startup => Err(LoadError::Nothing("startup needs no client")),
    };
    outcome.map(|outcome| (outcome, Vec::new()))
}
