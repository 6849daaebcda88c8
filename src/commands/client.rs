//! How commands reach the hypervisor of the view they run in.

use crate::control::{Description, Request, Response};
use crate::trap;

use super::Failure;

/// Is this process in a view?
pub fn in_view() -> bool {
    matches!(trap::control_call(b"\"Describe\""), Ok(Some(_)))
}

/// umvu's own programs are loaded at the host's root, whose libraries fit; back to the caller's. Outside of a view there
/// is nothing to be done.
pub fn go_home() {
    if let Ok(request) = serde_json::to_vec(&Request::GoHome) {
        let _ = trap::control_call(&request);
    }
}

/// Asks the view that this process runs in. Fails with a hint outside.
pub fn ask(request: &Request) -> Result<Response, Failure> {
    let bytes = serde_json::to_vec(request).map_err(|e| Failure::new(e.to_string()))?;
    match trap::control_call(&bytes) {
        Ok(Some(answer)) => {
            serde_json::from_slice(&answer).map_err(|e| Failure::new(format!("unreadable answer: {e}")))
        }
        Ok(None) => Err(Failure::with(1, "not in a view; run it inside one: umvu COMMAND")),
        Err(errno) => Err(Failure::with(1, format!("the view refused: {errno}"))),
    }
}

/// The view that this process runs in.
pub fn describe() -> Result<Description, Failure> {
    match ask(&Request::Describe)? {
        Response::View(view) => Ok(view),
        _ => Err(Failure::with(1, "the view gave a strange answer")),
    }
}

/// Asks for something to be done.
pub fn order(request: &Request) -> super::Outcome {
    match ask(request)? {
        Response::Failed(message) => Err(Failure::with(1, message)),
        Response::Done | Response::View(_) => Ok(0),
    }
}
