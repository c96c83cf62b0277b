//! The filters of texts.

use crate::jinja::arguments::{Arguments, dict_of, int, text};
use crate::jinja::display::{string_of, string_or};
use crate::jinja::error::{Result, failed};
use crate::jinja::formatting::{escaped, printf};
use crate::jinja::iterate::{items, len};
use crate::jinja::meter::{Meter, Output};
use crate::jinja::methods;
use crate::jinja::methods::text::lines;
use crate::jinja::number::{Number, is_space, parse_float};
use crate::jinja::operators::with_mark;
use crate::jinja::value::Value;

pub(super) const NAMES: [&str; 18] = [
    "capitalize",
    "center",
    "e",
    "escape",
    "filesizeformat",
    "forceescape",
    "format",
    "indent",
    "lower",
    "replace",
    "safe",
    "title",
    "trim",
    "truncate",
    "upper",
    "urlencode",
    "wordcount",
    "xmlattr",
];

/// Calls a filter of this file.
pub(super) fn call(name: &str, value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    match name {
        "capitalize" | "center" | "lower" | "upper" | "trim" => {
            let receiver = soft_text(value, meter)?;
            let arguments = match name {
                "center" if arguments.positional.is_empty() && arguments.named.is_empty() => {
                    Arguments::of(vec![Value::Int(80)])
                }
                _ => arguments,
            };
            let method = match name {
                "capitalize" => "capitalize",
                "center" => "center",
                "lower" => "lower",
                "upper" => "upper",
                _ => "strip",
            };
            methods::call(&receiver, method, arguments, meter)
        }
        "e" | "escape" | "forceescape" => {
            arguments.none(name)?;
            escape(name, value, meter)
        }
        "filesizeformat" => filesize(value, arguments, meter),
        "format" => {
            let values = match arguments.named.is_empty() {
                true => Value::tuple(arguments.positional, meter)?,
                false => Value::dict(dict_of(arguments.named, meter)?, meter)?,
            };
            printf(&string_of(value, meter)?, &values, meter)
        }
        "indent" => indent(value, arguments, meter),
        "replace" => replace(value, arguments, meter),
        "safe" => {
            arguments.none(name)?;
            Ok(with_mark(soft_text(value, meter)?, true))
        }
        "title" => {
            arguments.none(name)?;
            title(value, meter)
        }
        "truncate" => truncate(value, arguments, meter),
        "urlencode" => {
            arguments.none(name)?;
            urlencode(value, meter)
        }
        "wordcount" => {
            arguments.none(name)?;
            let text = string_of(value, meter)?;
            let words = text.split(|c: char| c != '_' && !c.is_alphanumeric());
            Ok(Value::Int(words.filter(|word| !word.is_empty()).count() as i64))
        }
        _ => xmlattr(value, arguments, meter),
    }
}

/// A text as it is, or `str(value)`.
fn soft_text(value: &Value, meter: &Meter) -> Result<Value> {
    match value {
        Value::Text(_) => Ok(value.clone()),
        other => Value::text(&string_of(other, meter)?, meter),
    }
}

fn escape(name: &str, value: &Value, meter: &Meter) -> Result<Value> {
    if name != "forceescape" && matches!(value, Value::Text(text) if text.is_markup) {
        return Ok(value.clone());
    }
    let mut out = Output::new(meter)?;
    escaped(&string_of(value, meter)?, &mut out)?;
    Ok(with_mark(Value::written(out)?, true))
}

fn replace(value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [old, new, count] = arguments.bind("replace", ["old", "new", "count"], 2)?;
    let count = count.filter(|count| !matches!(count, Value::None));
    let count = count.map_or(Ok(-1), |count| int(&count, "replace"))?;
    let (old, new) = (string_or(old, "", meter)?, string_or(new, "", meter)?);
    methods::text::replace(&string_of(value, meter)?, [&old, &new], count, meter)
}

/// The filter's own words begin behind white space, `-` and opening brackets, and not behind quotes.
fn title(value: &Value, meter: &Meter) -> Result<Value> {
    let text = string_of(value, meter)?;
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        let separates = is_space(c) || "-({[<".contains(c);
        match (separates, begins) {
            (true, _) => out.push(c),
            (false, true) => out.extend(c.to_uppercase()),
            (false, false) => out.extend(c.to_lowercase()),
        }
        begins = separates;
    }
    Value::text(&out, meter)
}

fn indent(value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [width, first, blank] = arguments.bind("indent", ["width", "first", "blank"], 0)?;
    let indention = match width {
        None => "    ".to_owned(),
        Some(Value::Text(text)) => text.as_str().to_owned(),
        Some(width) => {
            let mut out = Output::new(meter)?;
            out.repeat(" ", usize::try_from(int(&width, "indent")?).unwrap_or(0))?;
            out.text().to_owned()
        }
    };
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let (first, blank) = (is_true(first), is_true(blank));
    let text = text(value, "indent")?.to_owned() + "\n";
    let mut out = Output::new(meter)?;
    for (idx, (line, _)) in lines(&text).into_iter().enumerate() {
        let line = &text[line];
        if idx > 0 {
            out.push("\n")?;
        }
        let indents = if idx == 0 {
            first
        } else {
            blank || !line.is_empty()
        };
        if indents {
            out.push(&indention)?;
        }
        out.push(line)?;
    }
    Value::written(out)
}

fn truncate(value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [length, killwords, end, leeway] =
        arguments.bind("truncate", ["length", "killwords", "end", "leeway"], 0)?;
    let length = length.map_or(Ok(255), |length| int(&length, "truncate"))?;
    let end = string_or(end, "...", meter)?;
    let leeway = leeway.filter(|leeway| !matches!(leeway, Value::None));
    let leeway = leeway.map_or(Ok(5), |leeway| int(&leeway, "truncate"))?;
    let n_end = end.chars().count() as i64;
    if length < n_end || leeway < 0 {
        return Err(failed(format!(
            "truncate: the length is at least {n_end} and the leeway at least 0"
        )));
    }
    let n = len(value, meter)?
        .ok_or_else(|| failed(format!("object of type '{}' has no len()", value.type_name())))?;
    if n as i64 <= length.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let text = text(value, "truncate")?;
    let kept: String = text.chars().take((length - n_end) as usize).collect();
    let kept = match killwords.is_some_and(|kill| kill.is_true()) {
        true => kept.as_str(),
        false => kept.rsplit_once(' ').map_or(kept.as_str(), |(kept, _)| kept),
    };
    Value::text(&format!("{kept}{end}"), meter)
}

fn filesize(value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [binary] = arguments.bind("filesizeformat", ["binary"], 0)?;
    let number = match value.defined()? {
        Value::Text(text) => parse_float(text.as_str()),
        other => Number::of(other).map(|number| number.float()).transpose()?,
    };
    let number = number.ok_or_else(|| failed("filesizeformat: a number is expected"))?;
    let (base, middle) = match binary.is_some_and(|binary| binary.is_true()) {
        true => (1024.0, "i"),
        false => (1000.0, ""),
    };
    let text = if number == 1.0 {
        "1 Byte".to_owned()
    } else if number < base {
        format!("{} Bytes", number.trunc())
    } else {
        let letters: Vec<&str> = "k M G T P E Z Y".split(' ').collect();
        let mut unit = base * base;
        let mut idx = 0;
        while number >= unit && idx + 1 < letters.len() {
            unit *= base;
            idx += 1;
        }
        let letter = if middle == "i" {
            letters[idx].to_uppercase()
        } else {
            letters[idx].to_owned()
        };
        format!("{:.1} {letter}{middle}B", base * number / unit)
    };
    Value::text(&text, meter)
}

fn urlencode(value: &Value, meter: &Meter) -> Result<Value> {
    let mut out = Output::new(meter)?;
    let pairs = match value {
        Value::Dict(dict) => Some(Value::View(dict.clone(), crate::jinja::value::View::Items)),
        Value::List(_) | Value::Tuple(_) | Value::Stream(_) | Value::View(..) => Some(value.clone()),
        _ => None,
    };
    let Some(pairs) = pairs else {
        quote(&string_of(value, meter)?, "/", &mut out)?;
        return Value::written(out);
    };
    for (idx, pair) in items(&pairs, meter)?.iter().enumerate() {
        let pair = items(pair, meter)?;
        let [name, value] = pair.as_slice() else {
            return Err(failed("urlencode: pairs are expected"));
        };
        if idx > 0 {
            out.push("&")?;
        }
        quote(&string_of(name, meter)?, "", &mut out)?;
        out.push("=")?;
        quote(&string_of(value, meter)?, "", &mut out)?;
    }
    Value::written(out)
}

/// Appends a text as a part of a URL; in a query, a space becomes `+`.
fn quote(text: &str, kept: &str, out: &mut Output) -> Result<()> {
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "_.-~".contains(c) || kept.contains(c) {
            out.push(c.encode_utf8(&mut [0; 4]))?;
        } else if c == ' ' && kept.is_empty() {
            out.push("+")?;
        } else {
            out.push(&format!("%{byte:02X}"))?;
        }
    }
    Ok(())
}

fn xmlattr(value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [autospace] = arguments.bind("xmlattr", ["autospace"], 0)?;
    let Value::Dict(dict) = value.defined()? else {
        return Err(failed("xmlattr: a mapping is expected"));
    };
    let mut out = Output::new(meter)?;
    let mut separator = if autospace.is_none_or(|autospace| autospace.is_true()) {
        " "
    } else {
        ""
    };
    for (key, value) in &dict.entries {
        if matches!(value, Value::None | Value::Undefined(_)) {
            continue;
        }
        let name = text(&key.0, "xmlattr")?;
        if name.contains(|c: char| c.is_ascii_whitespace() || "/>=".contains(c)) {
            return Err(failed(format!("Invalid character in attribute name: {name:?}")));
        }
        out.push(separator)?;
        separator = " ";
        escaped(name, &mut out)?;
        out.push("=\"")?;
        escaped(&string_of(value, meter)?, &mut out)?;
        out.push("\"")?;
    }
    Value::written(out)
}
