//! When a certificate ends: the one fact that rustls does not tell (RFC 5280 section 4.1).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::{Duration, SystemTime};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity; `None` when the bytes are no certificate.
pub(super) fn end(certificate: &[u8]) -> Option<SystemTime> {
    let (certificate, _) = value(certificate, SEQUENCE)?;
    let (mut facts, _) = value(certificate, SEQUENCE)?;
    if let Some((_, rest)) = value(facts, VERSION) {
        facts = rest;
    }
    // Serial number, algorithm and issuer stand before the validity, which is two times.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, facts) = value(facts, tag)?;
    }
    let (validity, _) = value(facts, SEQUENCE)?;
    let (_, last) = time(validity)?;
    time(last).map(|(end, _)| end)
}

/// The content of the next value if it has this tag, and what follows it (X.690 section 8.1).
fn value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match first {
        ..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(length))?
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time(bytes: &[u8]) -> Option<(SystemTime, &[u8])> {
    let (century, (text, rest)) = if let Some(short) = value(bytes, UTC_TIME) {
        (None, short)
    } else {
        let (text, rest) = value(bytes, GENERALIZED_TIME)?;
        let (century, text) = text.split_at_checked(2)?;
        (Some(number(century)?), (text, rest))
    };
    let mut pairs = text.strip_suffix(b"Z")?.chunks_exact(2).map(number);
    let mut next = || pairs.next().flatten();
    let (year, month, day) = (next()?, next()?, next()?);
    let (hour, minute, second) = (next()?, next()?, next()?);
    // RFC 5280 section 4.1.2.5.1: two digits from 50 are of the last century.
    let century = century.unwrap_or(if year < 50 { 20 } else { 19 });
    let days = days(century.checked_mul(100)?.checked_add(year)?, month, day)?;
    let hours = days.checked_mul(24)?.checked_add(hour)?;
    let seconds =
        hours.checked_mul(60)?.checked_add(minute)?.checked_mul(60)?.checked_add(second)?;
    let end = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    Some((end, rest))
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Days since 1970-01-01 in the Gregorian calendar.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    // Counted from March, so that the leap day is the last of its year.
    let shifted = month.checked_add(9)?.checked_rem(12)?;
    let year = if month < 3 { year.checked_sub(1)? } else { year };
    let leaps = (year / 4).checked_sub(year / 100)?.checked_add(year / 400)?;
    let in_year = shifted.checked_mul(153)?.checked_add(2)?.checked_div(5)?.checked_add(day)?;
    year.checked_mul(365)?.checked_add(leaps)?.checked_add(in_year)?.checked_sub(719_469)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn ending(year: i32, month: u8, day: u8) -> Option<u64> {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, month, day);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let end = end(certificate.der())?;
        end.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs() / 86_400)
    }

    #[test]
    fn ends_are_read_in_both_forms() {
        assert_eq!(ending(2000, 2, 29), Some(11_016));
        assert_eq!(ending(2026, 11, 21), Some(20_778));
        assert_eq!(ending(2049, 12, 31), Some(29_219));
        assert_eq!(ending(2100, 3, 1), Some(47_541), "generalized time, and no leap day in 2100");
    }

    #[test]
    fn no_bytes_fail() {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let bytes = pair.cert.der().to_vec();
        for length in 0..bytes.len() {
            let _ = end(&bytes[..length]);
        }
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 0xff;
            let _ = end(&bent);
        }
    }
}
