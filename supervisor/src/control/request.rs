//! What a line of the control socket asks for. Foreign bytes: nothing here panics.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::path::PathBuf;

use serde_json::Value;

use crate::lifecycle::asked::Scale;

/// A request, understood.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) enum Request {
    Status,
    Reload { wait: bool },
    Upgrade { path: Option<PathBuf>, wait: bool },
    Stop { quick: bool },
    Workers(Scale),
    Retire(u32),
    Dump(Option<u32>),
    Pause,
    Resume,
}

impl Request {
    /// Whether its answer comes at the end of what it begins.
    pub(crate) fn waits(&self) -> bool {
        match self {
            Self::Reload { wait } | Self::Upgrade { wait, .. } => *wait,
            Self::Status
            | Self::Stop { .. }
            | Self::Workers(_)
            | Self::Retire(_)
            | Self::Dump(_)
            | Self::Pause
            | Self::Resume => false,
        }
    }
}

/// The request and its id; or what is wrong with it, and the id if there is one.
pub(crate) fn parse(line: &[u8]) -> Result<(Value, Request), (Value, String)> {
    let value: Value = serde_json::from_slice(line)
        .map_err(|error| (Value::Null, format!("is not JSON: {error}")))?;
    let id = value.get("id").cloned().unwrap_or(Value::Null);
    match understand(&value) {
        Ok(request) => Ok((id, request)),
        Err(why) => Err((id, why)),
    }
}

fn understand(value: &Value) -> Result<Request, String> {
    let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or_default();
    let slot = |name: &str| {
        value.get(name).and_then(Value::as_u64).and_then(|slot| u32::try_from(slot).ok())
    };
    match value.get("cmd").and_then(Value::as_str).ok_or("names no cmd")? {
        "status" => Ok(Request::Status),
        "reload" => Ok(Request::Reload { wait: flag("wait") }),
        "upgrade" => {
            let path = value.get("path").and_then(Value::as_str).map(PathBuf::from);
            match path {
                Some(path) if !path.is_absolute() => Err("path is not absolute".to_owned()),
                path => Ok(Request::Upgrade { path, wait: flag("wait") }),
            }
        }
        "stop" => Ok(Request::Stop { quick: flag("quick") }),
        "workers" => value
            .get("number")
            .and_then(Value::as_str)
            .and_then(scale)
            .map(Request::Workers)
            .ok_or_else(|| "number is to be +N, -N or N".to_owned()),
        "retire" => slot("slot").map(Request::Retire).ok_or_else(|| "names no slot".to_owned()),
        "dump" => Ok(Request::Dump(slot("slot"))),
        "pause" => Ok(Request::Pause),
        "resume" => Ok(Request::Resume),
        other => Err(format!("{} is no command", other.chars().take(40).collect::<String>())),
    }
}

/// `+2` and `-1` change the number, `4` sets it.
fn scale(text: &str) -> Option<Scale> {
    let number = || text.parse().ok();
    match text.as_bytes().first()? {
        b'+' | b'-' => number().map(Scale::By),
        _ => text.parse().ok().map(Scale::To),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_mean_what_they_say() {
        for (line, expected) in [
            (r#"{"id":1,"cmd":"reload","wait":true}"#, Request::Reload { wait: true }),
            (
                r#"{"cmd":"upgrade","path":"/v2"}"#,
                Request::Upgrade { path: Some("/v2".into()), wait: false },
            ),
            (r#"{"cmd":"workers","number":"+2"}"#, Request::Workers(Scale::By(2))),
            (r#"{"cmd":"workers","number":"-1"}"#, Request::Workers(Scale::By(-1))),
            (r#"{"cmd":"workers","number":"7"}"#, Request::Workers(Scale::To(7))),
            (r#"{"cmd":"dump"}"#, Request::Dump(None)),
            (r#"{"cmd":"retire","slot":3,"unknown":[]}"#, Request::Retire(3)),
        ] {
            assert_eq!(parse(line.as_bytes()).map(|(_, request)| request), Ok(expected));
        }
    }

    #[test]
    fn foreign_bytes_are_refused_with_a_reason_and_no_panic() {
        for line in [
            &b""[..],
            b"\xff\xfe",
            b"{}",
            b"[]",
            b"{\"cmd\":1}",
            b"{\"cmd\":\"dance\"}",
            b"{\"cmd\":\"upgrade\",\"path\":\"v2\"}",
            b"{\"cmd\":\"retire\",\"slot\":-1}",
            b"{\"cmd\":\"retire\",\"slot\":99999999999}",
            b"{\"cmd\":\"workers\",\"number\":\"+\"}",
            b"{\"cmd\":\"workers\",\"number\":\"99999999999\"}",
        ] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }
}
