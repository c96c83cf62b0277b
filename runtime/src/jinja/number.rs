//! Python's numbers: how they are written, read and rounded.

use num_bigint::{BigInt, Sign};

use super::error::{Result, failed};
use super::value::Value;

/// Digits of an integer that becomes a text or comes from one, at most; Python has the same bound.
const DIGITS_MAX: usize = 4_300;
/// Bits of an integer, at most.
const BITS_MAX: u64 = 1 << 20;

/// A value as a number. A bool is an integer.
#[derive(Clone, Debug)]
pub(super) enum Number {
    Int(i64),
    Big(BigInt),
    Float(f64),
}

impl Number {
    /// The number that a value is.
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Int(i64::from(*value))),
            Value::Int(number) => Some(Self::Int(*number)),
            Value::Big(number) => Some(Self::Big((**number).clone())),
            Value::Float(number) => Some(Self::Float(*number)),
            _ => None,
        }
    }

    /// The integer; `None` for a float.
    pub(super) fn big(&self) -> Option<BigInt> {
        match self {
            Self::Int(number) => Some(BigInt::from(*number)),
            Self::Big(number) => Some(number.clone()),
            Self::Float(_) => None,
        }
    }

    pub(super) fn float(&self) -> Result<f64> {
        match self {
            Self::Int(number) => Ok(*number as f64),
            Self::Float(number) => Ok(*number),
            Self::Big(number) => {
                let float: f64 = number.to_string().parse().unwrap_or(f64::INFINITY);
                if float.is_finite() {
                    Ok(float)
                } else {
                    Err(failed("int too large to convert to float"))
                }
            }
        }
    }
}

/// An integer as a value, if it is not too large.
pub(super) fn integer(number: BigInt) -> Result<Value> {
    if number.bits() > BITS_MAX {
        return Err(failed(format!("an integer has more than {BITS_MAX} bits")));
    }
    Ok(Value::big(number))
}

/// The digits of an integer.
pub(super) fn digits(number: &BigInt) -> Result<String> {
    // A decimal digit has more than three bits.
    if number.bits() > 4 * DIGITS_MAX as u64 {
        return Err(too_many_digits());
    }
    let text = number.to_string();
    if text.trim_start_matches('-').len() > DIGITS_MAX {
        return Err(too_many_digits());
    }
    Ok(text)
}

fn too_many_digits() -> super::error::Error {
    failed(format!(
        "Exceeds the limit ({DIGITS_MAX} digits) for integer string conversion"
    ))
}

/// Python's `repr` of a float.
pub(super) fn float_text(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = shortest(number);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..16).contains(&exponent) {
        return format!("{mantissa}{}", exponent_text(exponent));
    }
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => ("-", mantissa),
        None => ("", mantissa),
    };
    let digits = mantissa.replace('.', "");
    if exponent < 0 {
        let n_zeros = exponent.unsigned_abs() as usize - 1;
        return format!("{sign}0.{}{digits}", "0".repeat(n_zeros));
    }
    let n_whole = exponent as usize + 1;
    let digits = format!("{digits:0<n_whole$}");
    let (whole, fraction) = digits.split_at(n_whole);
    let fraction = if fraction.is_empty() { "0" } else { fraction };
    format!("{sign}{whole}.{fraction}")
}

/// The fewest digits that are this number and no other, in scientific form.
fn shortest(number: f64) -> String {
    let scientific = format!("{number:e}");
    let n_digits = scientific
        .split('e')
        .next()
        .unwrap_or("")
        .matches(|c: char| c.is_ascii_digit())
        .count();
    // Of two such texts that are equally near, Python takes the even one.
    let even = format!("{number:.*e}", n_digits.saturating_sub(1));
    match even.parse::<f64>() {
        Ok(same) if same == number => even,
        _ => scientific,
    }
}

/// `e+16`: an exponent with its sign and at least two digits.
pub(super) fn exponent_text(exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("e{sign}{:02}", exponent.unsigned_abs())
}

/// Reads an integer in a base as `int(text, base)` does; base 0 reads a prefix.
pub(super) fn parse_integer(text: &str, base: u32) -> Option<BigInt> {
    let text = text.trim_matches(is_space);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (Sign::Minus, rest),
        None => (Sign::Plus, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let prefixed = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find(|(prefix, of)| lower.starts_with(prefix) && (base == 0 || base == *of));
    let (digits, base) = match prefixed {
        Some((_, of)) => (lower[2..].strip_prefix('_').unwrap_or(&lower[2..]), of),
        None => (lower.as_str(), if base == 0 { 10 } else { base }),
    };
    let is_spaced = digits.starts_with('_') || digits.ends_with('_') || digits.contains("__");
    let digits = digits.replace('_', "");
    let is_valid = !is_spaced
        && !digits.is_empty()
        && digits.len() <= DIGITS_MAX
        && (2..=36).contains(&base)
        && digits.chars().all(|c| c.is_digit(base));
    let magnitude = is_valid.then(|| BigInt::parse_bytes(digits.as_bytes(), base))??;
    Some(if sign == Sign::Minus {
        -magnitude
    } else {
        magnitude
    })
}

/// Reads a float as `float(text)` does.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_space);
    let unsigned = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    if text.len() - unsigned.len() > 1 {
        return None;
    }
    let is_word = matches!(unsigned.as_str(), "inf" | "infinity" | "nan");
    let is_number = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned
            .chars()
            .all(|c| c.is_ascii_digit() || ".e+-_".contains(c));
    let is_spaced = unsigned.starts_with('_') || unsigned.ends_with('_') || unsigned.contains("__");
    if !(is_word || is_number) || is_spaced {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// The integer part of a float.
pub(super) fn truncated(number: f64) -> Result<Value> {
    if number.is_nan() {
        return Err(failed("cannot convert float NaN to integer"));
    }
    if number.is_infinite() {
        return Err(failed("cannot convert float infinity to integer"));
    }
    let whole = number.trunc();
    if whole.abs() < 9e18 {
        return Ok(Value::Int(whole as i64));
    }
    // From 2^53 on, the exponent is positive.
    let bits = whole.abs().to_bits();
    let exponent = (bits >> 52) as i64 - 1075;
    let mantissa = (bits & ((1 << 52) - 1)) | 1 << 52;
    let magnitude = BigInt::from(mantissa) << exponent;
    integer(if whole < 0.0 { -magnitude } else { magnitude })
}

/// Python's `round(number, n_digits)`.
pub(super) fn rounded(number: f64, n_digits: i64) -> f64 {
    if !number.is_finite() || n_digits > 323 {
        return number;
    }
    if n_digits >= 0 {
        let text = format!("{number:.*}", n_digits as usize);
        return text.parse().unwrap_or(number);
    }
    let scientific = format!("{number:e}");
    let exponent = scientific
        .split_once('e')
        .and_then(|(_, digits)| digits.parse::<i64>().ok());
    // Digits behind the point of the scientific form that remain.
    let n_kept = exponent.unwrap_or(0).saturating_add(n_digits);
    match usize::try_from(n_kept) {
        Ok(n_kept) => format!("{number:.n_kept$e}").parse().unwrap_or(number),
        // The first digit decides between nothing and one unit of the next place; a tie is nothing.
        Err(_) if n_kept == -1 && !is_half_or_less(&scientific) => {
            let unit: f64 = format!("1e{}", -n_digits).parse().unwrap_or(f64::INFINITY);
            unit.copysign(number)
        }
        Err(_) => 0f64.copysign(number),
    }
}

/// Whether the digits of a number in scientific form are at most 5.
fn is_half_or_less(scientific: &str) -> bool {
    let digits = scientific.trim_start_matches('-');
    let mantissa = digits
        .split('e')
        .next()
        .and_then(|digits| digits.parse::<f64>().ok());
    mantissa.is_none_or(|mantissa| mantissa <= 5.0)
}

/// Python's white space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}
