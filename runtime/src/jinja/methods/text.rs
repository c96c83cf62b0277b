//! Python's methods of texts.

use crate::jinja::arguments::{Arguments, int, text};
use crate::jinja::attributes::{attribute, item};
use crate::jinja::bounds::clamped;
use crate::jinja::display::is_printable;
use crate::jinja::error::{Result, failed};
use crate::jinja::formatting::{Part, escaped, format};
use crate::jinja::iterate::items;
use crate::jinja::meter::{Meter, Output};
use crate::jinja::number::is_space;
use crate::jinja::value::{Text, Value};

/// Calls a method.
pub(super) fn call(
    receiver: &Text,
    name: &'static str,
    arguments: Arguments,
    meter: &Meter,
) -> Result<Value> {
    let text = receiver.as_str();
    meter.pass_over(text.len())?;
    let value = match name {
        "capitalize" | "casefold" | "lower" | "swapcase" | "title" | "upper" => {
            arguments.none(name)?;
            Value::text(&cased(text, name), meter)?
        }
        "center" | "ljust" | "rjust" | "zfill" => padded(text, name, arguments, meter)?,
        "count" | "find" | "index" | "rfind" | "rindex" => return search(text, name, arguments),
        "endswith" | "startswith" => return has_affix(text, name, arguments),
        "expandtabs" => {
            let [size] = arguments.bind(name, ["tabsize"], 0)?;
            let size = size.map_or(Ok(8), |size| int(&size, name))?;
            expanded(text, usize::try_from(size).unwrap_or(0), meter)?
        }
        "format" => format(text, &arguments, &|value, part| read(value, part, meter), meter)?,
        "format_map" => {
            let [mapping] = arguments.bind(name, ["mapping"], 1)?;
            let arguments = mapped(mapping.unwrap_or(Value::None))?;
            format(text, &arguments, &|value, part| read(value, part, meter), meter)?
        }
        "join" => return joined(receiver, arguments, meter),
        "lstrip" | "rstrip" | "strip" => {
            let [letters] = arguments.bind(name, ["chars"], 0)?;
            let letters = letters.filter(|letters| !matches!(letters, Value::None));
            let letters = letters
                .as_ref()
                .map(|letters| self::letters(letters, name))
                .transpose()?;
            Value::text(stripped(text, name, letters), meter)?
        }
        "partition" | "rpartition" => return partition(receiver, name, arguments, meter),
        "removeprefix" | "removesuffix" => {
            let [affix] = arguments.bind(name, ["affix"], 1)?;
            let affix = affix.unwrap_or(Value::None);
            let affix = self::letters(&affix, name)?;
            let rest = match name {
                "removeprefix" => text.strip_prefix(affix),
                _ => text.strip_suffix(affix),
            };
            Value::text(rest.unwrap_or(text), meter)?
        }
        "replace" => replaced(text, arguments, meter)?,
        "rsplit" | "split" => return split(receiver, name, arguments, meter),
        "splitlines" => return split_lines(receiver, arguments, meter),
        "translate" | "encode" => return Err(failed(format!("str.{name} is not supported"))),
        _ => {
            arguments.none(name)?;
            return Ok(Value::Bool(is_kind(text, name)));
        }
    };
    Ok(crate::jinja::operators::with_mark(value, receiver.is_markup))
}

fn letters<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    text(value, name)
}

fn read(value: &Value, part: Part<'_>, meter: &Meter) -> Result<Value> {
    let found = match part {
        Part::Attribute(name) => attribute(value, name, meter)?,
        Part::Item(name) => match name.parse() {
            Ok(idx) => item(value, &Value::Int(idx), meter)?,
            Err(_) => item(value, &Value::text(name, meter)?, meter)?,
        },
    };
    found.defined().cloned()
}

fn mapped(mapping: Value) -> Result<Arguments> {
    let Value::Dict(dict) = mapping else {
        return Err(failed("format_map expects a mapping"));
    };
    let named = dict.entries.iter();
    let named = named.filter_map(|(key, value)| Some((key.0.as_str()?.to_owned(), value.clone())));
    Ok(Arguments {
        positional: Vec::new(),
        named: named.collect(),
    })
}

/// A list of texts, which are markup if `like` is.
fn texts<'t>(parts: impl Iterator<Item = &'t str>, like: &Text, meter: &Meter) -> Result<Value> {
    let text = |part| {
        Ok(crate::jinja::operators::with_mark(
            Value::text(part, meter)?,
            like.is_markup,
        ))
    };
    Value::list(parts.map(text).collect::<Result<_>>()?, meter)
}

/// A character as it begins a word.
fn title_case(c: char) -> String {
    let joined = match c {
        'Ǆ' | 'ǅ' | 'ǆ' => Some('ǅ'),
        'Ǉ' | 'ǈ' | 'ǉ' => Some('ǈ'),
        'Ǌ' | 'ǋ' | 'ǌ' => Some('ǋ'),
        'Ǳ' | 'ǲ' | 'ǳ' => Some('ǲ'),
        _ => None,
    };
    if let Some(joined) = joined {
        return joined.to_string();
    }
    // A letter that becomes several, such as ß, has one capital.
    let mut title = String::new();
    let mut has_capital = false;
    for c in c.to_uppercase() {
        if has_capital {
            title.extend(c.to_lowercase());
        } else {
            title.push(c);
        }
        has_capital |= c.is_uppercase();
    }
    title
}

/// A text in another case.
pub(in crate::jinja) fn cased(text: &str, name: &str) -> String {
    match name {
        "upper" => text.to_uppercase(),
        "lower" => text.to_lowercase(),
        "casefold" => {
            let folded = |c: char| -> String {
                if c == 'ı' {
                    c.to_string()
                } else {
                    c.to_uppercase().flat_map(char::to_lowercase).collect()
                }
            };
            text.chars().map(folded).collect()
        }
        "capitalize" => {
            let mut letters = text.chars();
            let first = letters.next().map(title_case).unwrap_or_default();
            first + &letters.as_str().to_lowercase()
        }
        "swapcase" => {
            let swapped = |c: char| -> String {
                if c.is_uppercase() {
                    c.to_lowercase().collect()
                } else {
                    c.to_uppercase().collect()
                }
            };
            text.chars().map(swapped).collect()
        }
        _ => {
            let mut titled = String::with_capacity(text.len());
            let mut in_word = false;
            for c in text.chars() {
                if in_word {
                    titled.extend(c.to_lowercase());
                } else {
                    titled.push_str(&title_case(c));
                }
                in_word = is_cased(c);
            }
            titled
        }
    }
}

fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase()
}

/// What `isalpha()` and its kin say of a text.
fn is_kind(text: &str, name: &str) -> bool {
    let all = |is: fn(char) -> bool| !text.is_empty() && text.chars().all(is);
    match name {
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => text.is_ascii(),
        "isdecimal" | "isdigit" => all(|c| c.is_ascii_digit()),
        "isnumeric" => all(char::is_numeric),
        "isprintable" => text.chars().all(is_printable),
        "isspace" => all(is_space),
        "isidentifier" => {
            all(|c| c == '_' || c.is_alphanumeric()) && !text.starts_with(|c: char| c.is_numeric())
        }
        "islower" => text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase),
        "isupper" => text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase),
        _ => {
            let mut in_word = false;
            let mut is_title = text.chars().any(is_cased);
            for c in text.chars() {
                is_title &= if in_word {
                    !c.is_uppercase()
                } else {
                    !c.is_lowercase()
                };
                in_word = is_cased(c);
            }
            is_title
        }
    }
}

fn padded(text: &str, name: &str, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [width, fill] = arguments.bind(name, ["width", "fillchar"], 1)?;
    let width = int(&width.unwrap_or(Value::None), name)?;
    let fill = fill.unwrap_or(Value::text(" ", meter)?);
    let fill = letters(&fill, name)?;
    if fill.chars().count() != 1 {
        return Err(failed("The fill character must be exactly one character long"));
    }
    let n = text.chars().count();
    let width = usize::try_from(width).unwrap_or(0);
    let n_missing = width.saturating_sub(n);
    let n_left = match name {
        "ljust" => 0,
        // The odd space stands left if the width is odd.
        "center" => n_missing / 2 + (n_missing & width & 1),
        _ => n_missing,
    };
    let mut out = Output::new(meter)?;
    if name == "zfill" {
        let at = usize::from(text.starts_with(['+', '-']));
        out.push(&text[..at])?;
        out.repeat("0", n_missing)?;
        out.push(&text[at..])?;
        return Value::written(out);
    }
    out.repeat(fill, n_left)?;
    out.push(text)?;
    out.repeat(fill, n_missing - n_left)?;
    Value::written(out)
}

/// The byte where the character `idx` begins.
fn byte_of(text: &str, idx: usize) -> usize {
    text.char_indices().nth(idx).map_or(text.len(), |(at, _)| at)
}

/// The bytes between two bounds in characters; `None` if the first lies behind the text.
fn window(text: &str, bounds: [Option<Value>; 2], name: &str) -> Result<Option<std::ops::Range<usize>>> {
    let len = text.chars().count();
    let [start, end] = bounds.map(|bound| bound.filter(|bound| !matches!(bound, Value::None)));
    let start = start.map_or(Ok(0), |start| int(&start, name))?;
    let end = end.map_or(Ok(len as i64), |end| int(&end, name))?;
    let (first, last) = (clamped(start, len), clamped(end, len));
    if start > len as i64 || first > last {
        return Ok(None);
    }
    Ok(Some(byte_of(text, first)..byte_of(text, last)))
}

fn search(text: &str, name: &str, arguments: Arguments) -> Result<Value> {
    let [wanted, start, end] = arguments.bind(name, ["sub", "start", "end"], 1)?;
    let wanted = wanted.unwrap_or(Value::None);
    let wanted = letters(&wanted, name)?;
    let window = window(text, [start, end], name)?;
    let range = window.clone().unwrap_or(0..0);
    let part = &text[range.clone()];
    if name == "count" {
        let n = match (window.is_some(), wanted.is_empty()) {
            (false, _) => 0,
            (true, true) => part.chars().count() + 1,
            (true, false) => part.matches(wanted).count(),
        };
        return Ok(Value::Int(n as i64));
    }
    let at = match name {
        "find" | "index" => part.find(wanted),
        _ => part.rfind(wanted),
    };
    match at.filter(|_| window.is_some()) {
        Some(at) => Ok(Value::Int(text[..range.start + at].chars().count() as i64)),
        None if name.ends_with("find") => Ok(Value::Int(-1)),
        None => Err(failed("substring not found")),
    }
}

fn has_affix(text: &str, name: &str, arguments: Arguments) -> Result<Value> {
    let [affixes, start, end] = arguments.bind(name, ["affix", "start", "end"], 1)?;
    let affixes = match affixes.unwrap_or(Value::None) {
        Value::Tuple(items) => items.values.clone(),
        other => vec![other],
    };
    let Some(window) = window(text, [start, end], name)? else {
        return Ok(Value::Bool(false));
    };
    let part = &text[window];
    for affix in &affixes {
        let affix = letters(affix, name)?;
        let has = match name {
            "startswith" => part.starts_with(affix),
            _ => part.ends_with(affix),
        };
        if has {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn expanded(text: &str, size: usize, meter: &Meter) -> Result<Value> {
    let mut out = Output::new(meter)?;
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' => {
                let n = if size == 0 { 0 } else { size - column % size };
                out.repeat(" ", n)?;
                column += n;
            }
            c => {
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                out.push(c.encode_utf8(&mut [0; 4]))?;
            }
        }
    }
    Value::written(out)
}

fn joined(separator: &Text, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [list] = arguments.bind("join", ["iterable"], 1)?;
    let mut out = Output::new(meter)?;
    let list = list.unwrap_or(Value::None);
    for (idx, item) in items(list.defined()?, meter)?.iter().enumerate() {
        if idx > 0 {
            out.push(separator.as_str())?;
        }
        let Value::Text(part) = item else {
            return Err(failed(format!(
                "sequence item {idx}: expected str instance, {} found",
                item.type_name()
            )));
        };
        if separator.is_markup && !part.is_markup {
            escaped(part.as_str(), &mut out)?;
        } else {
            out.push(part.as_str())?;
        }
    }
    let text = Value::written(out)?;
    Ok(crate::jinja::operators::with_mark(text, separator.is_markup))
}

fn stripped<'t>(text: &'t str, name: &str, letters: Option<&str>) -> &'t str {
    let strips = |c: char| letters.map_or_else(|| is_space(c), |letters| letters.contains(c));
    match name {
        "lstrip" => text.trim_start_matches(strips),
        "rstrip" => text.trim_end_matches(strips),
        _ => text.trim_matches(strips),
    }
}

fn partition(receiver: &Text, name: &str, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [separator] = arguments.bind(name, ["sep"], 1)?;
    let separator = separator.unwrap_or(Value::None);
    let separator = letters(&separator, name)?;
    if separator.is_empty() {
        return Err(failed("empty separator"));
    }
    let text = receiver.as_str();
    let found = match name {
        "partition" => text.split_once(separator),
        _ => text.rsplit_once(separator),
    };
    let parts = match found {
        Some((before, behind)) => [before, separator, behind],
        None if name == "partition" => [text, "", ""],
        None => ["", "", text],
    };
    let parts = parts.map(|part| Value::text(part, meter));
    Value::tuple(parts.into_iter().collect::<Result<_>>()?, meter)
}

fn replaced(text: &str, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [old, new, count] = arguments.bind("replace", ["old", "new", "count"], 2)?;
    let (old, new) = (old.unwrap_or(Value::None), new.unwrap_or(Value::None));
    let count = count.map_or(Ok(-1), |count| int(&count, "replace"))?;
    replace(
        text,
        [letters(&old, "replace")?, letters(&new, "replace")?],
        count,
        meter,
    )
}

/// `text.replace(old, new, count)`; a negative count is none.
pub(in crate::jinja) fn replace(text: &str, pair: [&str; 2], count: i64, meter: &Meter) -> Result<Value> {
    let [old, new] = pair;
    let n_max = usize::try_from(count).unwrap_or(usize::MAX);
    let mut out = Output::new(meter)?;
    let mut at = 0;
    for (found, _) in text.match_indices(old).take(n_max) {
        out.push(&text[at..found])?;
        out.push(new)?;
        at = found + old.len();
    }
    out.push(&text[at..])?;
    Value::written(out)
}

fn split(receiver: &Text, name: &str, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [separator, n_max] = arguments.bind(name, ["sep", "maxsplit"], 0)?;
    let n_max = n_max.map_or(Ok(-1), |n| int(&n, name))?;
    let n_max = usize::try_from(n_max).unwrap_or(usize::MAX);
    let text = receiver.as_str();
    // Each part is a value.
    meter.steps(text.len() as u64)?;
    let parts: Vec<&str> = match separator.filter(|separator| !matches!(separator, Value::None)) {
        None => match name {
            "split" => words(text, n_max),
            _ => last_words(text, n_max),
        },
        Some(separator) => {
            let separator = letters(&separator, name)?;
            if separator.is_empty() {
                return Err(failed("empty separator"));
            }
            match name {
                "split" => text.splitn(n_max.saturating_add(1), separator).collect(),
                _ => {
                    let mut parts: Vec<&str> = text.rsplitn(n_max.saturating_add(1), separator).collect();
                    parts.reverse();
                    parts
                }
            }
        }
    };
    texts(parts.into_iter(), receiver, meter)
}

fn split_lines(receiver: &Text, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [keeps_ends] = arguments.bind("splitlines", ["keepends"], 0)?;
    let keeps_ends = keeps_ends.is_some_and(|keeps| keeps.is_true());
    let text = receiver.as_str();
    let line = |(line, end): (std::ops::Range<usize>, usize)| match keeps_ends {
        true => &text[line.start..end],
        false => &text[line],
    };
    texts(lines(text).into_iter().map(line), receiver, meter)
}

/// The words of a text, the rest after `n_max` of them in one piece.
fn words(text: &str, n_max: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if words.len() == n_max {
            words.push(rest);
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        words.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_space);
    }
    words
}

/// The same from the end.
fn last_words(text: &str, n_max: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() {
        if words.len() == n_max {
            words.push(rest);
            break;
        }
        let space = rest.char_indices().rev().find(|(_, c)| is_space(*c));
        let start = space.map_or(0, |(at, c)| at + c.len_utf8());
        words.push(&rest[start..]);
        rest = rest[..start].trim_end_matches(is_space);
    }
    words.reverse();
    words
}

/// The lines of a text, and where each line end ends.
pub(in crate::jinja) fn lines(text: &str) -> Vec<(std::ops::Range<usize>, usize)> {
    let ends_line = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let Some(n) = text[start..].find(ends_line) else {
            lines.push((start..text.len(), text.len()));
            break;
        };
        let end = start + n;
        let n_end = match text[end..].starts_with("\r\n") {
            true => 2,
            false => text[end..].chars().next().map_or(1, char::len_utf8),
        };
        lines.push((start..end, end + n_end));
        start = end + n_end;
    }
    lines
}
