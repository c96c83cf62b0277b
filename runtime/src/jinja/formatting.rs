//! Python's two ways to format: `'%s' % value`, and `'{}'.format(value)` with its format specifications.

use num_bigint::{BigInt, Sign};

use super::arguments::Arguments;
use super::display::{string_of, write_repr};
use super::error::{Result, failed};
use super::meter::{Meter, Output};
use super::number::{Number, digits, exponent_text, float_text, truncated};
use super::value::{Name, Value};

/// Width and precision of a formatted value, at most.
const WIDTH_MAX: usize = 1 << 20;
/// Digits behind the point, at most.
const PRECISION_MAX: usize = 1_000;

/// Appends a text with HTML's special characters escaped.
pub(super) fn escaped(text: &str, out: &mut Output) -> Result<()> {
    let mut rest = text;
    while let Some(at) = rest.find(['&', '<', '>', '\'', '"']) {
        out.push(&rest[..at])?;
        out.push(match rest.as_bytes()[at] {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'\'' => "&#39;",
            _ => "&#34;",
        })?;
        rest = &rest[at + 1..];
    }
    out.push(rest)
}

/// How a value is written.
#[derive(Clone, Debug, Default)]
struct Spec {
    fill: Option<char>,
    /// `<`, `>`, `^` or `=`.
    align: Option<char>,
    /// `+` or a space: what stands before numbers that are not negative.
    sign: Option<char>,
    /// `#`: the prefix of a base.
    alternate: bool,
    width: usize,
    /// `,` or `_` between groups of digits.
    group: Option<char>,
    precision: Option<usize>,
    /// The letter of the presentation; a space if there is none.
    kind: Option<char>,
}

/// `format % values`.
pub(super) fn printf(format: &str, values: &Value, meter: &Meter) -> Result<Value> {
    let list = match values {
        Value::Tuple(items) => items.values.clone(),
        other => vec![other.clone()],
    };
    let mut writer = Printf {
        values,
        list: list.into_iter(),
        n_taken: 0,
        used_keys: false,
        meter,
        out: Output::new(meter)?,
    };
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        writer.out.push(&rest[..at])?;
        rest = writer.directive(&rest[at + 1..])?;
    }
    writer.out.push(rest)?;
    let may_be_unused =
        writer.used_keys || writer.n_taken == 0 && matches!(values, Value::Dict(_) | Value::List(_));
    if writer.list.next().is_some() && !may_be_unused {
        return Err(failed("not all arguments converted during string formatting"));
    }
    Value::written(writer.out)
}

struct Printf<'a> {
    values: &'a Value,
    list: std::vec::IntoIter<Value>,
    n_taken: usize,
    used_keys: bool,
    meter: &'a Meter,
    out: Output,
}

impl Printf<'_> {
    fn take(&mut self) -> Result<Value> {
        self.n_taken += 1;
        self.list
            .next()
            .ok_or_else(|| failed("not enough arguments for format string"))
    }

    /// Writes what stands behind `%`, and returns the rest.
    fn directive<'t>(&mut self, text: &'t str) -> Result<&'t str> {
        let mut rest = text;
        let mut value = None;
        if let Some(behind) = rest.strip_prefix('(') {
            let (name, behind) = behind
                .split_once(')')
                .ok_or_else(|| failed("incomplete format key"))?;
            let Value::Dict(dict) = self.values else {
                return Err(failed("format requires a mapping"));
            };
            let found = dict.entries.get(&Name(name)).cloned();
            value = Some(found.ok_or_else(|| failed(format!("KeyError: '{name}'")))?);
            self.used_keys = true;
            rest = behind;
        }
        let mut spec = Spec::default();
        let n_flags = rest.find(|c| !"#0- +".contains(c)).unwrap_or(rest.len());
        let flags = &rest[..n_flags];
        rest = &rest[n_flags..];
        spec.alternate = flags.contains('#');
        spec.sign = ['+', ' '].into_iter().find(|sign| flags.contains(*sign));
        (spec.width, rest) = self.size(rest)?;
        if let Some(behind) = rest.strip_prefix('.') {
            let (precision, behind) = self.size(behind)?;
            spec.precision = Some(precision);
            rest = behind;
        }
        rest = rest.trim_start_matches(['h', 'l', 'L']);
        let kind = rest.chars().next().ok_or_else(|| failed("incomplete format"))?;
        let behind = &rest[kind.len_utf8()..];
        if kind == '%' {
            self.out.push("%")?;
            return Ok(behind);
        }
        let is_number = !matches!(kind, 's' | 'r' | 'a' | 'c');
        spec.align = Some(if flags.contains('-') {
            '<'
        } else if flags.contains('0') && is_number {
            '='
        } else {
            '>'
        });
        spec.fill = (spec.align == Some('=')).then_some('0');
        let value = match value {
            Some(value) => value,
            None => self.take()?,
        };
        let text = self.converted(&value, kind, &spec)?;
        pad(&text, &spec, &mut self.out)?;
        Ok(behind)
    }

    /// A width or a precision: digits, or `*` for an argument.
    fn size<'t>(&mut self, text: &'t str) -> Result<(usize, &'t str)> {
        if let Some(rest) = text.strip_prefix('*') {
            return match self.take()? {
                Value::Int(n) if n >= 0 => Ok((checked_size(n as usize)?, rest)),
                _ => Err(failed("* wants int")),
            };
        }
        let n = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let size = text[..n].parse().unwrap_or(if n == 0 { 0 } else { usize::MAX });
        Ok((checked_size(size)?, &text[n..]))
    }

    fn converted(&self, value: &Value, kind: char, spec: &Spec) -> Result<String> {
        let cut = |text: String| match spec.precision {
            Some(n) => text.chars().take(n).collect(),
            None => text,
        };
        match kind {
            's' => Ok(cut(string_of(value, self.meter)?)),
            'r' | 'a' => {
                let mut out = Output::new(self.meter)?;
                write_repr(value, &mut out)?;
                Ok(cut(out.into_parts().0))
            }
            'c' => match value {
                Value::Text(text) if text.as_str().chars().count() == 1 => Ok(text.as_str().to_owned()),
                Value::Int(code) => u32::try_from(*code)
                    .ok()
                    .and_then(char::from_u32)
                    .map(String::from)
                    .ok_or_else(|| failed("%c arg not in range(0x110000)")),
                _ => Err(failed("%c requires int or char")),
            },
            'd' | 'i' | 'u' | 'o' | 'x' | 'X' => {
                let number = match Number::of(value) {
                    Some(Number::Float(number)) if !"oxX".contains(kind) => Number::of(&truncated(number)?),
                    Some(Number::Float(_)) | None => None,
                    number => number,
                };
                let number = number.and_then(|number| number.big()).ok_or_else(|| {
                    let found = value.type_name();
                    failed(format!("%{kind} format: a number is required, not {found}"))
                })?;
                let kind = if "iu".contains(kind) { 'd' } else { kind };
                let mut text = integer_text(&number, kind, spec)?;
                // The precision is the least number of digits.
                if let Some(n) = spec.precision {
                    let at = text.find(|c: char| c.is_ascii_hexdigit()).unwrap_or(text.len());
                    let n_missing = n.saturating_sub(text.len() - at);
                    text.insert_str(at, &"0".repeat(n_missing));
                }
                Ok(text)
            }
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                let number = Number::of(value)
                    .ok_or_else(|| failed(format!("must be real number, not {}", value.type_name())))?;
                float_format(number.float()?, kind, spec)
            }
            other => Err(failed(format!("unsupported format character '{other}'"))),
        }
    }
}

fn checked_size(size: usize) -> Result<usize> {
    if size > WIDTH_MAX {
        return Err(failed(format!("a width or precision is above {WIDTH_MAX}")));
    }
    Ok(size)
}

/// An integer in the base of `kind`, with sign, prefix and groups.
fn integer_text(number: &BigInt, kind: char, spec: &Spec) -> Result<String> {
    let magnitude = number.magnitude();
    let (mut text, prefix) = match kind {
        'x' => (format!("{magnitude:x}"), "0x"),
        'X' => (format!("{magnitude:X}"), "0X"),
        'o' => (format!("{magnitude:o}"), "0o"),
        'b' => (format!("{magnitude:b}"), "0b"),
        _ => (digits(number)?.trim_start_matches('-').to_owned(), ""),
    };
    if let Some(separator) = spec.group {
        let n = if kind == 'd' { 3 } else { 4 };
        text = grouped(&text, separator, n);
    }
    let prefix = if spec.alternate { prefix } else { "" };
    Ok(format!(
        "{}{prefix}{text}",
        sign(number.sign() == Sign::Minus, spec)
    ))
}

fn grouped(digits: &str, separator: char, n: usize) -> String {
    let mut text = String::new();
    for (idx, c) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(n) {
            text.push(separator);
        }
        text.push(c);
    }
    text
}

fn sign(is_negative: bool, spec: &Spec) -> String {
    match (is_negative, spec.sign) {
        (true, _) => "-".to_owned(),
        (false, Some(sign @ ('+' | ' '))) => sign.to_string(),
        _ => String::new(),
    }
}

/// A float with `e`, `f`, `g` or `%`.
fn float_format(number: f64, kind: char, spec: &Spec) -> Result<String> {
    let precision = spec.precision.unwrap_or(6);
    if precision > PRECISION_MAX {
        return Err(failed(format!("a precision is above {PRECISION_MAX}")));
    }
    let magnitude = number.abs();
    let text = if !number.is_finite() {
        let text = if number.is_nan() { "nan" } else { "inf" };
        text.to_owned() + if kind == '%' { "%" } else { "" }
    } else {
        match kind.to_ascii_lowercase() {
            'e' => scientific(magnitude, precision),
            'g' => general(magnitude, precision.max(1), precision.max(1), spec.alternate),
            '%' => format!("{:.precision$}%", magnitude * 100.0),
            _ => format!("{magnitude:.precision$}"),
        }
    };
    let text = if kind.is_ascii_uppercase() {
        text.to_uppercase()
    } else {
        text
    };
    let text = match (spec.group, text.find(|c: char| !c.is_ascii_digit())) {
        (Some(separator), None) => grouped(&text, separator, 3),
        (Some(separator), Some(at)) if at > 0 => grouped(&text[..at], separator, 3) + &text[at..],
        _ => text,
    };
    let is_negative = number.is_sign_negative() && !number.is_nan();
    Ok(sign(is_negative, spec) + &text)
}

fn scientific(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    mantissa.to_owned() + &exponent_text(exponent.parse().unwrap_or(0))
}

/// A float with this many digits, and with an exponent from `n_whole_max` digits before the point on.
fn general(number: f64, precision: usize, n_whole_max: usize, keeps_zeros: bool) -> String {
    let text = format!("{number:.*e}", precision - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') && !keeps_zeros {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= n_whole_max as i64 {
        return trimmed(mantissa) + &exponent_text(exponent as i32);
    }
    let n_decimals = (precision as i64 - 1 - exponent).max(0) as usize;
    trimmed(&format!("{number:.n_decimals$}"))
}

/// Appends a text in its width.
fn pad(text: &str, spec: &Spec, out: &mut Output) -> Result<()> {
    let n = spec.width.saturating_sub(text.chars().count());
    let fill = spec.fill.unwrap_or(' ').to_string();
    match spec.align {
        Some('<') => {
            out.push(text)?;
            out.repeat(&fill, n)
        }
        Some('^') => {
            out.repeat(&fill, n / 2)?;
            out.push(text)?;
            out.repeat(&fill, n - n / 2)
        }
        Some('=') => {
            // The fill stands between the sign or the prefix and the digits.
            let unsigned = text.trim_start_matches(['+', '-', ' ']);
            let prefixes = ["0x", "0X", "0o", "0b"];
            let has_prefix = spec.alternate && prefixes.iter().any(|prefix| unsigned.starts_with(prefix));
            let at = text.len() - unsigned.len() + if has_prefix { 2 } else { 0 };
            out.push(&text[..at])?;
            out.repeat(&fill, n)?;
            out.push(&text[at..])
        }
        _ => {
            out.repeat(&fill, n)?;
            out.push(text)
        }
    }
}

/// `format.format(*args, **kwargs)`. `attribute` and `item` read the parts of a field's name.
pub(super) fn format(
    format: &str,
    arguments: &Arguments,
    read: &dyn Fn(&Value, Part<'_>) -> Result<Value>,
    meter: &Meter,
) -> Result<Value> {
    let mut writer = Formatter {
        arguments,
        read,
        next: 0,
        meter,
    };
    let mut out = Output::new(meter)?;
    writer.write(format, 0, &mut out)?;
    Value::written(out)
}

/// A part of a field's name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    Attribute(&'a str),
    Item(&'a str),
}

struct Formatter<'a> {
    arguments: &'a Arguments,
    read: &'a dyn Fn(&Value, Part<'_>) -> Result<Value>,
    /// The argument of the next field without a name.
    next: usize,
    meter: &'a Meter,
}

impl Formatter<'_> {
    fn write(&mut self, format: &str, level: usize, out: &mut Output) -> Result<()> {
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push(&rest[..at])?;
            let mark = &rest[at..at + 1];
            let behind = &rest[at + 1..];
            if let Some(behind) = behind.strip_prefix(mark) {
                out.push(mark)?;
                rest = behind;
                continue;
            }
            if mark == "}" {
                return Err(failed("Single '}' encountered in format string"));
            }
            let end = field_end(behind).ok_or_else(|| failed("expected '}' before end of string"))?;
            self.field(&behind[..end], level, out)?;
            rest = &behind[end + 1..];
        }
        out.push(rest)
    }

    fn field(&mut self, field: &str, level: usize, out: &mut Output) -> Result<()> {
        if level > 1 {
            return Err(failed("Max string recursion exceeded"));
        }
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = field.split_once('!').unwrap_or((field, ""));
        let value = self.value(name)?;
        let mut inner = Output::new(self.meter)?;
        self.write(spec, level + 1, &mut inner)?;
        let value = match conversion {
            "" => value,
            "s" => Value::text(&string_of(&value, self.meter)?, self.meter)?,
            "r" | "a" => {
                let mut text = Output::new(self.meter)?;
                write_repr(&value, &mut text)?;
                Value::written(text)?
            }
            other => return Err(failed(format!("Unknown conversion specifier {other}"))),
        };
        formatted(&value, inner.text(), out, self.meter)
    }

    /// The value that a field names.
    fn value(&mut self, name: &str) -> Result<Value> {
        let n = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(n);
        let idx = match first {
            "" => {
                self.next += 1;
                Some(self.next - 1)
            }
            digits => digits.parse().ok(),
        };
        let mut value = match idx {
            Some(idx) => self.arguments.positional.get(idx).cloned().ok_or_else(|| {
                failed(format!(
                    "Replacement index {idx} out of range for positional args tuple"
                ))
            })?,
            None => {
                let mut named = self.arguments.named.iter();
                let found = named
                    .find(|(known, _)| known == first)
                    .map(|(_, value)| value.clone());
                found.ok_or_else(|| failed(format!("KeyError: '{first}'")))?
            }
        };
        while !rest.is_empty() {
            let part = if let Some(behind) = rest.strip_prefix('[') {
                let (item, behind) = behind
                    .split_once(']')
                    .ok_or_else(|| failed("Missing ']' in format string"))?;
                rest = behind;
                Part::Item(item)
            } else {
                let behind = rest.strip_prefix('.').unwrap_or(rest);
                let n = behind.find(['.', '[']).unwrap_or(behind.len());
                rest = &behind[n..];
                Part::Attribute(&behind[..n])
            };
            value = (self.read)(&value, part)?;
        }
        Ok(value)
    }
}

/// Where a field ends, whose specification may contain fields.
fn field_end(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Appends `format(value, spec)`.
fn formatted(value: &Value, spec: &str, out: &mut Output, meter: &Meter) -> Result<()> {
    if spec.is_empty() {
        return super::display::write(value, out);
    }
    let mut spec = spec_of(spec)?;
    let kind = spec.kind;
    let (text, is_number) = match (Number::of(value), kind) {
        (Some(Number::Float(number)), _) => (float_spec(number, kind, &mut spec)?, true),
        (Some(number), Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%')) => {
            (float_format(number.float()?, kind.unwrap_or('f'), &spec)?, true)
        }
        (Some(number), None | Some('d' | 'x' | 'X' | 'o' | 'b' | 'n'))
            if !matches!((value, kind), (Value::Bool(_), None)) =>
        {
            if spec.precision.is_some() {
                return Err(failed("Precision not allowed in integer format specifier"));
            }
            let kind = kind.filter(|kind| *kind != 'n').unwrap_or('d');
            (
                integer_text(&number.big().unwrap_or_default(), kind, &spec)?,
                true,
            )
        }
        (_, None | Some('s')) if matches!(value, Value::Text(_) | Value::Bool(_)) => {
            if spec.sign.is_some() || spec.alternate || spec.group.is_some() || spec.align == Some('=') {
                return Err(failed(
                    "a format specification for numbers does not apply to a text",
                ));
            }
            let text = string_of(value, meter)?;
            let cut = match spec.precision {
                Some(n) => text.chars().take(n).collect(),
                None => text,
            };
            (cut, false)
        }
        _ => {
            return Err(failed(format!(
                "Unknown format code for object of type '{}'",
                value.type_name()
            )));
        }
    };
    if spec.align.is_none() {
        spec.align = Some(match (is_number, spec.fill) {
            (true, Some('0')) => '=',
            (true, _) => '>',
            _ => '<',
        });
    }
    pad(&text, &spec, out)
}

fn float_spec(number: f64, kind: Option<char>, spec: &mut Spec) -> Result<String> {
    match (kind, spec.precision) {
        (None, None) => {
            let text = float_text(number.abs());
            let text = match spec.group {
                Some(separator) => {
                    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
                    grouped(&text[..at], separator, 3) + &text[at..]
                }
                None => text,
            };
            Ok(sign(number.is_sign_negative() && !number.is_nan(), spec) + &text)
        }
        (None, Some(precision)) => {
            // At least one digit stands behind the point.
            let precision = precision.clamp(1, PRECISION_MAX);
            if !number.is_finite() {
                return float_format(number, 'g', spec);
            }
            let text = general(number.abs(), precision, precision - 1, spec.alternate);
            let is_whole = text.chars().all(|c| c.is_ascii_digit());
            let text = if is_whole { text + ".0" } else { text };
            Ok(sign(number.is_sign_negative(), spec) + &text)
        }
        (Some('n'), _) => float_format(number, 'g', spec),
        (Some(kind @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%')), _) => float_format(number, kind, spec),
        (Some(kind), _) => Err(failed(format!(
            "Unknown format code '{kind}' for object of type 'float'"
        ))),
    }
}

/// Reads a format specification.
fn spec_of(text: &str) -> Result<Spec> {
    let mut spec = Spec::default();
    let is_align = |c: char| "<>^=".contains(c);
    let mut chars = text.chars().peekable();
    let letters: Vec<char> = text.chars().take(2).collect();
    if letters.len() == 2 && is_align(letters[1]) {
        spec.fill = chars.next();
        spec.align = chars.next();
    } else {
        spec.align = chars.next_if(|c| is_align(*c));
    }
    spec.sign = chars.next_if(|c| "+- ".contains(*c));
    spec.alternate = chars.next_if_eq(&'#').is_some();
    if chars.next_if_eq(&'0').is_some() && spec.fill.is_none() {
        spec.fill = Some('0');
    }
    let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| -> Result<Option<usize>> {
        let mut digits = String::new();
        while let Some(c) = chars.next_if(char::is_ascii_digit) {
            digits.push(c);
        }
        match digits.is_empty() {
            true => Ok(None),
            false => Ok(Some(checked_size(digits.parse().unwrap_or(usize::MAX))?)),
        }
    };
    spec.width = number(&mut chars)?.unwrap_or(0);
    spec.group = chars.next_if(|c| ",_".contains(*c));
    if chars.next_if_eq(&'.').is_some() {
        let precision = number(&mut chars)?;
        spec.precision = Some(precision.ok_or_else(|| failed("Format specifier missing precision"))?);
    }
    spec.kind = chars.next();
    if chars.next().is_some() {
        return Err(failed("Invalid format specifier"));
    }
    Ok(spec)
}
