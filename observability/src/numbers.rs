//! Numbers as both exposition formats print them.

/// A number as both formats read it: shortest round trip, whole numbers below 9e15 without fraction or exponent.
pub(crate) fn number(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if value.fract() == 0.0 && value.abs() < 9e15 {
        if value.is_sign_negative() {
            out.push(b'-');
        }
        out.extend_from_slice(itoa::Buffer::new().format(whole(value.abs())).as_bytes());
    } else {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    }
}

/// A whole number from 0 to 2⁵³ as an integer.
fn whole(value: f64) -> u64 {
    let bits = value.to_bits();
    let exponent = bits >> 52;
    if exponent < 1_023 {
        return 0; // 0 itself: nothing else below 1 is whole
    }
    let digits = bits & ((1 << 52) - 1) | 1 << 52;
    digits >> 52_u64.saturating_sub(exponent - 1_023)
}

/// A bound always has a fraction, so that a series keeps its name when the format changes: `1.0`, never `1`.
pub(crate) fn bound_text(bound: f64) -> String {
    let mut text = Vec::new();
    number(&mut text, bound);
    if bound.is_finite() && !text.contains(&b'.') && !text.contains(&b'e') {
        text.extend_from_slice(b".0");
    }
    String::from_utf8(text).unwrap_or_default() // always ASCII
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: f64) -> String {
        let mut out = Vec::new();
        number(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_round_trip() {
        assert_eq!(shown(0.0), "0");
        assert_eq!(shown(-3.0), "-3");
        assert_eq!(shown(0.1), "0.1");
        assert_eq!(shown(-0.0), "-0");
        assert_eq!(shown(1.0), "1");
        assert_eq!(shown(8_999_999_999_999_999.0), "8999999999999999");
        assert_eq!(shown(8e15), "8000000000000000");
        assert_eq!(shown(f64::NAN), "NaN");
        assert_eq!(shown(f64::NEG_INFINITY), "-Inf");
        for value in [1e300, 1.5e-9, 0.1 + 0.2, 1.0 / 3.0] {
            assert_eq!(shown(value).parse::<f64>().unwrap().to_bits(), f64::to_bits(value));
        }
    }

    #[test]
    fn bounds_keep_a_fraction() {
        assert_eq!(bound_text(1.0), "1.0");
        assert_eq!(bound_text(0.005), "0.005");
        assert_eq!(bound_text(10.0), "10.0");
    }
}
