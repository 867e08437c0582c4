//! Requests on the control socket: what is read is written, and read again, the same.

use crun_lite::control::parse;

pub(crate) fn play(line: &[u8]) {
    let Ok(request) = parse(line) else { return };
    let mut value = serde_json::to_value(&request).expect("a request can be written");
    value["version"] = 1.into();
    let again = parse(value.to_string().as_bytes());
    assert_eq!(again, Ok(request));
}
