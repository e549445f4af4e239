//! Fields that the users of both surfaces have.

use super::Fields;
use crate::secret::Secret;

/// An e-mail address: at most 254 characters, and something around one `@`.
pub(crate) fn email(fields: &mut Fields) -> String {
    let email = fields.text("email", 1..=254);
    // An empty one has been refused already.
    if !email.is_empty() && !is_address(&email) {
        fields.refuse("email", "is invalid");
    }
    email
}

fn is_address(email: &str) -> bool {
    let mut sides = email.split('@');
    let has_sides = matches!(
        (sides.next(), sides.next(), sides.next()),
        (Some(name), Some(host), None) if !name.is_empty() && !host.is_empty()
    );
    has_sides && !email.chars().any(|letter| letter.is_whitespace() || letter.is_control())
}

/// What an address is found by: however it is written, it is one.
pub(crate) fn email_key(email: &str) -> String {
    email.to_lowercase()
}

/// A new password of at least so many characters; what is longer than 1,024 bytes is not hashed.
pub(crate) fn password(fields: &mut Fields, least: usize) -> Secret {
    let password = fields.text("password", least..=LONGEST);
    if password.chars().count() <= LONGEST && password.len() > LONGEST {
        fields.refuse("password", format!("is too long (maximum is {LONGEST} bytes)"));
    }
    Secret::new(password)
}

const LONGEST: usize = 1_024;
