//! `tracestate` as a span may carry it (W3C Trace Context level 2, section 3.3.1). The worker passed on what was small enough;
//! whether it is well formed is asked here, where only kept spans come.

/// The members with nothing between them but commas; empty unless all are well formed.
pub(super) fn checked(sent: &str) -> String {
    let mut checked = String::with_capacity(sent.len());
    let members = sent.split(',').map(|member| member.trim_matches([' ', '\t']));
    for member in members.filter(|member| !member.is_empty()) {
        let pair = member.split_once('=');
        if !pair.is_some_and(|(key, value)| is_key(key) && is_value(value)) {
            return String::new();
        }
        if !checked.is_empty() {
            checked.push(',');
        }
        checked.push_str(member);
    }
    checked
}

fn is_key(key: &str) -> bool {
    let begins_well =
        key.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    let may_stand =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    begins_well && key.len() <= MOST_BYTES && key.bytes().all(may_stand)
}

fn is_value(value: &str) -> bool {
    value.len() <= MOST_BYTES
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=')
}

const MOST_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_well_formed_stays_and_all_else_is_left_out_whole() {
        for (sent, kept) in [
            ("a=1", "a=1"),
            (" a=1 ,\t2b@c/d=x y,", "a=1,2b@c/d=x y"),
            ("", ""),
            ("a", ""),
            ("a=1,B=2", ""),
            ("a=1=2", ""),
            ("=1", ""),
            ("_a=1", ""),
            ("a=\u{e4}", ""),
        ] {
            assert_eq!(checked(sent), kept, "{sent}");
        }
        let long = "x".repeat(MOST_BYTES + 1);
        assert_eq!(checked(&format!("{long}=1")), "");
        assert_eq!(checked(&format!("a={long}")), "");
    }
}
