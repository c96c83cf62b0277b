//! How many parameters functions have. A tuple does not hide parameters: its members count.

use super::check;

/// Most parameters of a function beside `self`, as in clippy.toml; more are a struct.
const PARAMETERS_MAX: usize = 5;

#[test]
fn functions_have_few_parameters() {
    check(|path, text| {
        let code = text.split("mod tests {").next()?;
        let many = functions(code).filter(|(_, n_parameters)| *n_parameters > PARAMETERS_MAX);
        let many: Vec<String> = many
            .map(|(name, n)| format!("{path}: {name} has {n} parameters"))
            .collect();
        (!many.is_empty()).then(|| many.join("\n"))
    });
}

/// The functions of a source: their names and the number of their parameters.
fn functions(code: &str) -> impl Iterator<Item = (&str, usize)> {
    let starts = code.match_indices("fn ").filter(|(at, _)| {
        let line = code[..*at].rfind('\n').map_or(0, |end| end + 1);
        !code[line..*at].contains("//")
    });
    starts.filter_map(|(at, keyword)| {
        let rest = &code[at + keyword.len()..];
        let name = rest
            .split(|char: char| !char.is_alphanumeric() && char != '_')
            .next()?;
        let open = parameters_start(rest)?;
        let inside = enclosed(&rest[open..])?;
        (!name.is_empty()).then(|| (name, n_parameters(inside)))
    })
}

/// Where the list of parameters begins, behind a list of generics.
fn parameters_start(rest: &str) -> Option<usize> {
    let mut depth = 0;
    let mut previous = ' ';
    for (at, char) in rest.char_indices() {
        match char {
            '<' => depth += 1,
            '>' if previous != '-' => depth -= 1,
            '(' if depth == 0 => return Some(at),
            '{' | ';' if depth == 0 => return None,
            _ => {}
        }
        previous = char;
    }
    None
}

/// What the bracket at the start of a text encloses.
fn enclosed(text: &str) -> Option<&str> {
    let mut depth = 0;
    for (at, char) in text.char_indices() {
        match char {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&text[1..at]);
        }
    }
    None
}

fn n_parameters(list: &str) -> usize {
    let count = |parameter: &&str| match parameter.rsplit_once(": (") {
        Some((_, members)) => items(members.trim_end_matches(')')).len(),
        None => usize::from(!is_self(parameter)),
    };
    items(list).iter().map(count).sum()
}

fn is_self(parameter: &str) -> bool {
    parameter.ends_with("self") || parameter.starts_with("self:")
}

/// The items of a list with commas between them.
fn items(list: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut previous = ' ';
    let mut start = 0;
    let mut found = Vec::new();
    for (at, char) in list.char_indices().chain([(list.len(), ',')]) {
        match char {
            '(' | '[' | '<' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '>' if previous != '-' => depth -= 1,
            ',' if depth == 0 => {
                found.push(list[start..at].trim());
                start = (at + 1).min(list.len());
            }
            _ => {}
        }
        previous = char;
    }
    found.retain(|item| !item.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_tuples_count() {
        let code = "fn a() {}\n// fn comment(a: u8)\nfn b<T: Fn(u8) -> u8>(&mut self, x: Vec<(u8, u8)>, (y, z): (u8, &[u8])) {}\n\
                    fn c(f: impl Fn(u8, u8) -> u8, n: u8) -> u8;";
        assert_eq!(
            functions(code).collect::<Vec<_>>(),
            [("a", 0), ("b", 3), ("c", 2)]
        );
    }
}
