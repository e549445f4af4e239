//! Text from strangers in every place that takes text: one record stays one line, and nothing in it forges a key.

use proptest::prelude::*;

use super::*;

#[test]
fn the_longest_hostile_values_still_give_one_whole_line() {
    for hostile in ["\u{1}", "\u{e0041}", "\"", "\u{85}"] {
        let all = hostile.repeat(2_000);
        let request = RequestRecord {
            route: all.as_str().into(),
            path: all.as_str().into(),
            request_id: all.as_str().into(),
            user_agent: all.as_str().into(),
            method: Method::Other,
            method_text: all.as_str().into(),
            ..request()
        };
        for format in [Format::Logfmt, Format::Json, Format::Pretty] {
            let mut out = Vec::new();
            Encoder::new(format, &all).request(&mut out, origin(), &request);
            assert_harmless(&text(out));
        }
    }
}

/// Text that an attacker would try, and any other text.
pub(crate) fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\r\nlevel=error msg=forged".to_owned()),
        Just("\" level=error x=\"".to_owned()),
        Just("\u{1b}[31m\u{9b}2J".to_owned()),
        Just("\u{2028}\u{202e}\u{200b}\u{e0041}\u{fffd}".to_owned()),
        Just("\\\"\\u0041\\".to_owned()),
        Just("=".to_owned()),
        Just("x".repeat(300)),
        any::<String>(),
        "[ -~]{0,40}",
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_500) })]

    #[test]
    fn requests_read_back_up_to_the_cut(
        path in hostile(), agent in hostile(), route in hostile(), id in hostile(), method in hostile(),
    ) {
        let given = RequestRecord {
            path: path.into(), route: route.into(), user_agent: agent.into(), request_id: id.into(),
            method: Method::Other, method_text: method.into(), ..request()
        };
        for format in [Format::Logfmt, Format::Json] {
            let line = access(format, &given);
            assert_harmless(&line);
            let pairs = if format == Format::Logfmt { parse(&line) } else { pairs_of_json(&line) };
            let values = [
                ("path", &given.path), ("route", &given.route), ("user_agent", &given.user_agent),
                ("request_id", &given.request_id),
            ];
            for (key, value) in values {
                if value.is_empty() {
                    assert!(!pairs.iter().any(|(name, _)| name == key));
                    continue;
                }
                let limit = LIMITS.iter().find(|limit| limit.0 == key).map_or(512, |limit| limit.1);
                prop_assert!(is_cut_of(value_of(&pairs, key), value, limit), "{key} {line}");
            }
            prop_assert_eq!(value_of(&pairs, "level"), "info");
        }
        assert_harmless(&access(Format::Pretty, &given));
    }

    #[test]
    fn events_read_back_up_to_the_cut(
        message in hostile(), fields in proptest::collection::vec((hostile(), hostile()), 0..12),
    ) {
        let owned = fields.iter().map(|(key, value)| (key.clone(), OwnedValue::Str(value.clone())));
        let line = event_line(Format::Logfmt, &event(&message, owned.collect()));
        assert_harmless(&line);
        let pairs = parse(&line);
        prop_assert!(is_cut_of(value_of(&pairs, "msg"), &message, 1_024), "{line}");
        let mut keys: Vec<_> = pairs.iter().map(|(key, _)| key).collect();
        keys.sort();
        keys.dedup();
        prop_assert_eq!(keys.len(), pairs.len(), "a key twice in {}", line);
        let left_out = pairs.iter().find(|(key, _)| key == "truncated").map_or(0, |(_, n)| n.parse().unwrap());
        let shown = &pairs[7..];
        prop_assert_eq!(shown.len() - usize::from(left_out > 0) + left_out, fields.len());
        for ((_, given), (_, value)) in fields.iter().zip(shown.iter().filter(|(key, _)| key != "truncated")) {
            prop_assert!(value == "***" || is_cut_of(value, given, 512), "{line}");
        }
        let json = event_line(Format::Json, &event(&message, vec![]));
        prop_assert!(is_cut_of(value_of(&pairs_of_json(&json), "msg"), &message, 1_024));
        assert_harmless(&event_line(Format::Pretty, &event(&message, vec![])));
    }
}
