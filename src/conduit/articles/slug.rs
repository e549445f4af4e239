//! The name of an article in its address.

/// The title in small ASCII letters, digits and `-`, and six that make it one of its kind.
pub(super) fn of(title: &str) -> String {
    let title = slug::slugify(title);
    // All of it is ASCII: a character is a byte.
    let title = title.get(..LONGEST).unwrap_or(&title).trim_matches('-');
    let suffix: String = std::iter::repeat_with(alphanumeric).take(6).collect();
    if title.is_empty() { suffix } else { format!("{title}-{suffix}") }
}

fn alphanumeric() -> char {
    char::from_digit(fastrand::u32(0..36), 36).unwrap_or('0')
}

/// How often another suffix is tried.
pub(super) const ATTEMPTS: usize = 4;
const LONGEST: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_title_gives_a_slug_that_an_address_can_have() {
        for title in
            ["How to train your dragon", "Élan & ὄνομα", "日本語", "!!!", "\u{301}", "feed"]
        {
            let slug = of(title);
            assert!(slug.len() >= 6 && slug.len() <= LONGEST + 7, "{slug}");
            let mut letters = slug.bytes();
            assert!(
                letters.all(|letter| letter.is_ascii_lowercase()
                    || letter.is_ascii_digit()
                    || letter == b'-'),
                "{slug}"
            );
            assert!(slug != "feed" && of(title) != slug, "{slug}");
        }
        assert!(of(&"x".repeat(255)).len() == LONGEST + 7);
    }
}
