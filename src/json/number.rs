//! Numbers as JavaScript reads and prints them: doubles, in their shortest form.

use std::borrow::Cow;

/// Digits beyond these cannot change which double is nearest, apart from being there at all.
const SIGNIFICANT_DIGITS: usize = 800;

/// The double that a valid JSON number denotes.
pub(super) fn parse(source: &str) -> f64 {
    // Rust's reader wants exponents and lengths within reason; JavaScript's takes any.
    let source =
        if source.len() > SIGNIFICANT_DIGITS { shortened(source) } else { Cow::Borrowed(source) };
    // The grammar of JSON numbers is a part of Rust's.
    source.parse().unwrap_or(f64::NAN)
}

/// A short source for the same double: the first digits that count, and the exponent.
fn shortened(source: &str) -> Cow<'_, str> {
    let (sign, unsigned) = source.split_at(usize::from(source.starts_with('-')));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = String::new();
    // The point stands this many places behind the first digit that is not 0.
    let mut point = i64::try_from(whole.len()).unwrap_or(i64::MAX);
    let mut all = whole.bytes().chain(fraction.bytes()).skip_while(|&digit| {
        let zero = digit == b'0';
        point -= i64::from(zero);
        zero
    });
    digits.extend(all.by_ref().take(SIGNIFICANT_DIGITS).map(char::from));
    if all.any(|digit| digit != b'0') {
        digits.push('1');
    }
    if digits.is_empty() {
        digits.push('0');
    }
    let negative = exponent.starts_with('-');
    let exponent = exponent
        .bytes()
        .filter(u8::is_ascii_digit)
        .fold(0_i64, |sum, digit| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    let exponent = if negative { -exponent } else { exponent }.saturating_add(point);
    // Any double with so few digits is 0 or infinite beyond these.
    format!("{sign}0.{digits}e{}", exponent.clamp(-9_999, 9_999)).into()
}

/// Prints as `JSON.stringify` does: JSON has no Infinity, and JavaScript prints no sign of -0.
pub(super) fn write(number: f64, out: &mut String) {
    if number.is_finite() {
        out.push_str(ryu_js::Buffer::new().format_finite(number));
    } else {
        out.push_str("null");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(source: &str) -> String {
        let mut out = String::new();
        write(parse(source), &mut out);
        out
    }

    #[test]
    fn numbers_print_as_javascript_prints_them() {
        for (source, text) in [
            ("1.0", "1"),
            ("-0", "0"),
            ("-0.0e5", "0"),
            ("1e21", "1e+21"),
            ("1e20", "100000000000000000000"),
            ("1e-7", "1e-7"),
            ("0.000001", "0.000001"),
            ("12345678901234567890", "12345678901234567000"),
            ("9007199254740993", "9007199254740992"),
            ("1e400", "null"),
            ("-1e400", "null"),
            ("5e-324", "5e-324"),
            ("1e-400", "0"),
            ("0.1", "0.1"),
            ("1e99999999999999999999999", "null"),
            ("0e99999999999999999999999", "0"),
            ("-1e-99999999999999999999999", "0"),
        ] {
            assert_eq!(printed(source), text, "{source}");
        }
    }

    #[test]
    fn very_long_numbers_are_read_exactly() {
        let zeros = "0".repeat(1_000_000);
        assert_eq!(printed(&format!("1{zeros}e-1000000")), "1");
        assert_eq!(printed(&format!("-0.{zeros}15E+1000001")), "-1.5");
        assert_eq!(printed(&format!("{}.{zeros}", 123)), "123");
        assert_eq!(printed(&format!("0.{zeros}")), "0");
        assert_eq!(printed(&format!("1{zeros}")), "null");
        // Half way between two doubles but for the very last digit.
        assert_eq!(printed(&format!("9007199254740993.{zeros}1")), "9007199254740994");
        assert_eq!(printed(&format!("9007199254740993.{zeros}0")), "9007199254740992");
    }
}
