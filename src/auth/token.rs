//! JSON Web Tokens, signed with HS256 and nothing else, whatever their header says.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode, get_current_timestamp,
};
use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::time::now;

/// Which surface a token is for; on the other it is worth nothing.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Audience {
    Conduit,
    Blog,
}

impl Audience {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Conduit => "conduit",
            Self::Blog => "blog",
        }
    }

    /// How long a token is good for when the settings do not say.
    pub(super) fn lifetime(self) -> Duration {
        match self {
            Self::Conduit => Duration::from_hours(2),
            Self::Blog => Duration::from_hours(1),
        }
    }
}

/// What a good token says.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct Credentials {
    pub(crate) user: i64,
    /// That of the user's tokens when it was issued; another one now means that it is revoked.
    pub(crate) version: i64,
}

/// What stands in `Authorization`.
pub(crate) enum Presented<'a> {
    Nothing,
    Token(&'a str),
    /// Another scheme, two headers, or no text.
    Unreadable,
}

impl<'a> Presented<'a> {
    /// Reads the header; the schemes are words in any case.
    pub(crate) fn of(headers: &'a HeaderMap, schemes: &[&str]) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (first, second) = (values.next(), values.next());
        let Some(value) = first else { return Self::Nothing };
        let words = value.to_str().ok().and_then(|text| text.trim().split_once(' '));
        match words {
            Some((scheme, token))
                if second.is_none()
                    && schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known)) =>
            {
                Self::Token(token.trim_start())
            }
            _ => Self::Unreadable,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: u64,
    exp: u64,
    ver: i64,
}

/// The secret, ready for use.
pub(super) struct Keys {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl Keys {
    pub(super) fn new(secret: &Secret) -> Self {
        let bytes = secret.expose().as_bytes();
        Self {
            encoding: EncodingKey::from_secret(bytes),
            decoding: DecodingKey::from_secret(bytes),
        }
    }

    pub(super) fn issue(
        &self,
        audience: Audience,
        user: i64,
        version: i64,
        lifetime: Duration,
    ) -> Option<Secret> {
        let iat = u64::try_from(now()).unwrap_or(0) / 1_000_000;
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: audience.as_str().to_owned(),
            sub: user.to_string(),
            iat,
            exp: iat + lifetime.as_secs(),
            ver: version,
        };
        encode(&Header::new(Algorithm::HS256), &claims, &self.encoding).ok().map(Secret::new)
    }

    pub(super) fn verify(&self, audience: Audience, token: &str) -> Option<Credentials> {
        if token.len() > LONGEST {
            return None;
        }
        // The defaults would forgive a minute, never look at `nbf`, and ask for `exp` alone.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.set_audience(&[audience.as_str()]);
        validation.set_issuer(&[ISSUER]);
        let claims = decode::<Claims>(token, &self.decoding, &validation).ok()?.claims;
        // The crate lets a token live on through the second of its end.
        if claims.exp <= get_current_timestamp() {
            return None;
        }
        Some(Credentials { user: claims.sub.parse().ok()?, version: claims.ver })
    }
}

const ISSUER: &str = "saola-reference";
/// Longer ones are not even parsed.
const LONGEST: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new(&Secret::new("0123456789abcdef0123456789abcdef".to_owned()))
    }

    #[test]
    fn a_token_is_good_on_its_surface_until_its_end() {
        let issue = |seconds| {
            let lifetime = Duration::from_secs(seconds);
            keys().issue(Audience::Blog, 7, 3, lifetime).unwrap()
        };
        let verify = |audience, token: &Secret| keys().verify(audience, token.expose());
        let token = issue(60);
        let known = Some(Credentials { user: 7, version: 3 });
        assert_eq!(verify(Audience::Blog, &token), known);
        assert_eq!(verify(Audience::Conduit, &token), None);
        assert_eq!(verify(Audience::Blog, &issue(0)), None, "its end is no more part of it");
    }

    #[test]
    fn the_header_is_read_in_any_case_and_only_once() {
        let presented = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, axum::http::HeaderValue::from_static(value));
            }
            match Presented::of(&headers, &["Token", "Bearer"]) {
                Presented::Nothing => "nothing".to_owned(),
                Presented::Token(token) => token.to_owned(),
                Presented::Unreadable => "unreadable".to_owned(),
            }
        };
        assert_eq!(presented(&[]), "nothing");
        assert_eq!(presented(&["tOKEN abc"]), "abc");
        assert_eq!(presented(&["bearer  abc"]), "abc");
        for values in [&["Basic abc"][..], &["Token"], &["abc"], &["Token a", "Token a"]] {
            assert_eq!(presented(values), "unreadable", "{values:?}");
        }
    }
}
