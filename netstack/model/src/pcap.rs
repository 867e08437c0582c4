//! Frames out of a capture: the classic format, Ethernet (the IETF's draft-ietf-opsawg-pcap).

/// The frames in a capture of a container, or what is wrong with it.
///
/// # Errors
/// It is no capture of an Ethernet, or ends within a frame.
pub fn frames(file: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let (header, mut rest) = file.split_first_chunk::<24>().ok_or("too short")?;
    let swapped = match header[..4] {
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => false,
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => true,
        _ => return Err("not a capture in the classic format".to_owned()),
    };
    let number = |bytes: &[u8]| {
        let bytes: [u8; 4] = bytes.try_into().unwrap();
        if swapped {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    };
    if number(&header[20..]) & 0xffff != 1 {
        return Err("not of an Ethernet".to_owned());
    }
    let mut frames = Vec::new();
    while let Some((record, more)) = rest.split_first_chunk::<16>() {
        let length = number(&record[8..12]) as usize;
        let frame = more.get(..length).ok_or("it ends within a frame")?;
        frames.push(frame.to_vec());
        rest = &more[length..];
    }
    Ok(frames)
}
