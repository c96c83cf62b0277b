//! Grammars followed by a random model: whatever it draws, the text has the required form.

mod calls;
mod schemas;
mod validate;

use serde_json::json;

use super::*;

/// Tokens of an answer, at most. The model prefers to end after half of them.
const N_TOKENS_MAX: usize = 600;

/// The tokens of a model. The last one is special and ends answers.
struct Vocabulary {
    tokens: TokenBytes,
    eos: u32,
}

/// Typical tokens of a vocabulary: parts of JSON, words, numbers, other scripts.
const PIECES: [&str; 60] = [
    "{\"", "\":", "\": ", "\": \"", "\",", "\", \"", "\"}", "\"]", "\"}]", "{}", "[]", "[{\"", "}}", "},",
    ", ", "true", "false", "null", "na", "name", "age", "id", "it", "items", "type", "value", "kind", "the",
    " the", "The", "in", "ing", " a", "10", "20", "2024", "-0", "0.", "e+", "1e", "99", "\\n", "\\u", "\\\"",
    "\\\\", "\n ", "\n  ", "  ", "    ", "\n\n", "é", "ü", "✓", "日本", "語", "</a>", "</", "<a", "fun",
    "begin",
];

impl Vocabulary {
    /// All bytes and some pieces, like a byte-level tokenizer.
    fn byte_level() -> Vocabulary {
        let bytes = (0..=255u8).map(|byte| vec![byte]);
        Vocabulary::of(bytes.chain(PIECES.iter().map(|piece| piece.as_bytes().to_vec())))
    }

    /// Pieces, most of which begin with a space, and bytes, like SentencePiece.
    fn sentence_piece() -> Vocabulary {
        let spaced = PIECES.iter().map(|piece| format!(" {piece}").into_bytes());
        let letters = (b' '..=b'~').flat_map(|letter| [vec![letter], vec![b' ', letter]]);
        let bytes = (0..=255u8).map(|byte| vec![byte]);
        Vocabulary::of(bytes.chain(spaced).chain(letters))
    }

    fn of(words: impl Iterator<Item = Vec<u8>>) -> Vocabulary {
        let words = words.map(|word| (word, false));
        let marks = ["<tool>", "<|end|>"].map(|mark| (mark.as_bytes().to_vec(), true));
        let tokens = TokenBytes::of_words(words.chain(marks));
        let eos = tokens.n_ids() as u32 - 1;
        Vocabulary { tokens, eos }
    }

    fn grammars(&self) -> Grammars {
        // Models often pad their logits.
        Grammars::new(&self.tokens, &[self.eos], self.tokens.n_ids() + 50).unwrap()
    }
}

/// Seeded random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

fn allowed(follower: &mut Follower, vocabulary: &Vocabulary) -> Vec<u32> {
    let mask = follower.mask().unwrap();
    let is_allowed = |id: &u32| mask.words()[*id as usize / 32] >> (id % 32) & 1 == 1;
    (0..vocabulary.tokens.n_ids() as u32).filter(is_allowed).collect()
}

/// The text of a random model; `None` if it did not end in time.
fn random_text(vocabulary: &Vocabulary, grammar: &Grammar, random: &mut Random) -> Option<String> {
    let mut follower = grammar.follow();
    let mut text = Vec::new();
    for n_drawn in 0..N_TOKENS_MAX {
        let allowed = allowed(&mut follower, vocabulary);
        assert!(
            !allowed.is_empty(),
            "nothing may follow {:?}",
            String::from_utf8_lossy(&text)
        );
        let is_end = |id: &u32| {
            let last = vocabulary.tokens.get(*id).last();
            *id == vocabulary.eos || last.is_some_and(|byte| b"\"}]>".contains(byte))
        };
        let ends: Vec<u32> = allowed.iter().copied().filter(is_end).collect();
        let wants_end = n_drawn > N_TOKENS_MAX / 2 || random.below(3) == 0;
        let from = if wants_end && !ends.is_empty() {
            &ends
        } else {
            &allowed
        };
        let token = from[random.below(from.len())];
        if token != vocabulary.eos {
            text.extend_from_slice(vocabulary.tokens.get(token));
        }
        if follower.advance(token).unwrap() == Followed::Complete {
            return Some(String::from_utf8(text).expect("a text in UTF-8"));
        }
        assert_ne!(token, vocabulary.eos, "the end token did not end the answer");
    }
    None
}

/// The texts of a random model that ended in time.
fn random_texts(vocabulary: &Vocabulary, constraint: &Constraint, n: usize) -> Vec<String> {
    let compiled = vocabulary.grammars().compile(constraint);
    let grammar = compiled.unwrap_or_else(|error| panic!("{constraint:?}: {error}"));
    let texts = (0..n as u64).filter_map(|seed| random_text(vocabulary, &grammar, &mut Random(seed * 7 + 1)));
    let texts: Vec<String> = texts.collect();
    assert!(
        texts.len() * 2 >= n,
        "{constraint:?}: only {} of {n} texts ended",
        texts.len()
    );
    texts
}

fn refusal(constraint: &Constraint) -> GrammarError {
    Vocabulary::byte_level()
        .grammars()
        .compile(constraint)
        .map(drop)
        .unwrap_err()
}

#[test]
fn regular_expressions_choices_and_grammars_match_the_complete_text() {
    let regex = |text: &str| Constraint::Regex(text.to_owned());
    let gbnf = |text: &str| Constraint::Grammar(text.to_owned());
    let is_sum = |text: &str| text.bytes().all(|byte| b"0123456789+()".contains(&byte));
    type Matches = Box<dyn Fn(&str) -> bool>;
    let cases: Vec<(Constraint, Matches)> = vec![
        (
            regex(r"[0-9]{3}-[a-f]+x"),
            Box::new(|text| text.as_bytes()[3] == b'-' && text.ends_with('x')),
        ),
        (
            regex(r"^\d{2,4}$"),
            Box::new(|text| text.parse::<u16>().is_ok() && text.len() >= 2),
        ),
        (
            regex(r"a/b\/c|\$"),
            Box::new(|text| ["a/b/c", "$"].contains(&text)),
        ),
        (regex("^yes|no$"), Box::new(|text| ["yes", "no"].contains(&text))),
        (
            regex("日本+\n?"),
            Box::new(|text| text.trim_end_matches(['本', '\n']) == "日"),
        ),
        (
            Constraint::Choice(
                ["yes", "yes sir", "no\n\"x\"\u{7f}", ""]
                    .map(String::from)
                    .to_vec(),
            ),
            Box::new(|text| ["yes", "yes sir", "no\n\"x\"\u{7f}", ""].contains(&text)),
        ),
        (
            gbnf("start: \"a\" B\nB: /[0-9]+/"),
            Box::new(|text| text[1..].bytes().all(|byte| byte.is_ascii_digit())),
        ),
        (
            gbnf("root ::= \"SELECT \" col # one\ncol ::= \"col_1\" | \"col_2\""),
            Box::new(|text| text.starts_with("SELECT col_")),
        ),
        (
            gbnf("root ::= sum\nsum ::= term (\"+\" term)*\nterm ::= [0-9]+ | \"(\" sum \")\""),
            Box::new(is_sum),
        ),
    ];
    for (constraint, is_right) in cases {
        for text in random_texts(&Vocabulary::byte_level(), &constraint, 20) {
            assert!(is_right(&text), "{text:?} of {constraint:?}");
        }
    }
}

/// llama.cpp's grammar of JSON, shortened.
const JSON_GBNF: &str = r#"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,1})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"#;

#[test]
fn the_grammar_of_json_gives_json() {
    for vocabulary in [Vocabulary::byte_level(), Vocabulary::sentence_piece()] {
        for text in random_texts(&vocabulary, &Constraint::Grammar(JSON_GBNF.to_owned()), 20) {
            let parsed = serde_json::from_str::<serde_json::Value>(&text);
            // One half of a surrogate pair is not a character.
            assert!(parsed.is_ok() || text.contains("\\u"), "{text}");
        }
    }
}

#[test]
fn a_repetition_ends_before_text_that_looks_like_more_of_it() {
    let grammar = Constraint::Grammar("root ::= word \" end\"\nword ::= [a-z ]+".to_owned());
    for text in random_texts(&Vocabulary::byte_level(), &grammar, 10) {
        assert!(text.ends_with(" end"), "{text}");
    }
}

#[test]
fn a_trigger_in_free_text_begins_a_form() {
    let schema = json!({"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": false});
    let older = json!({"type": "structural_tag", "triggers": ["<fun="],
        "structures": [{"begin": "<fun=a>", "schema": schema, "end": "</fun>"}]});
    let vocabulary = Vocabulary::byte_level();
    let grammar = vocabulary
        .grammars()
        .compile(&Constraint::StructuralTag(older))
        .unwrap();
    let begin = b"Well, <fu <fun=a>";
    let mut follower = grammar.follow();
    for &byte in begin {
        assert!(allowed(&mut follower, &vocabulary).contains(&u32::from(byte)));
        assert_eq!(follower.advance(u32::from(byte)), Ok(Followed::GoesOn));
    }
    assert_eq!(
        allowed(&mut follower, &vocabulary)
            .iter()
            .filter(|id| **id < 256)
            .count(),
        1,
        "only an opening brace"
    );
    for &byte in b"{\"x\":12}</fun> and" {
        assert!(allowed(&mut follower, &vocabulary).contains(&u32::from(byte)));
        follower.advance(u32::from(byte)).unwrap();
    }
    assert!(allowed(&mut follower, &vocabulary).contains(&vocabulary.eos));
}

/// Whether an answer may be `text` and then end. `<tool>` in it is the special token.
fn is_followed(vocabulary: &Vocabulary, grammar: &Grammar, text: &str) -> bool {
    let mut follower = grammar.follow();
    let mark = [vocabulary.eos - 1];
    let tokens = text.split("<tool>").enumerate().flat_map(|(idx, part)| {
        let bytes = part.bytes().map(u32::from);
        mark.into_iter().take(idx.min(1)).chain(bytes)
    });
    let mut ended = Followed::GoesOn;
    for token in tokens {
        if ended == Followed::Complete || !allowed(&mut follower, vocabulary).contains(&token) {
            return false;
        }
        ended = follower.advance(token).unwrap();
    }
    ended == Followed::Complete || allowed(&mut follower, vocabulary).contains(&vocabulary.eos)
}

#[test]
fn reasoning_precedes_the_constrained_answer() {
    let vocabulary = Vocabulary::byte_level();
    let grammars = vocabulary.grammars();
    let between = Preamble::Between {
        open: "<t>",
        close: "</t>",
    };
    let messages = Preamble::Messages {
        open: "<tool>a",
        close: "b<tool>",
        answer: "<tool>c",
    };
    let constraints = [
        Constraint::Choice(vec!["12".into(), "7".into()]),
        Constraint::Regex("[0-9]{1,2}".into()),
        Constraint::JsonSchema(json!({"type": "integer", "minimum": 0, "maximum": 99})),
        Constraint::Grammar("start: NUMBER\nNUMBER: /[0-9]{1,2}/".into()),
        Constraint::StructuralTag(json!({"format": {"type": "or", "elements": [
            {"type": "const_string", "value": "12"},
            {"type": "grammar", "grammar": "root ::= \"7\""},
        ]}})),
    ];
    for constraint in &constraints {
        let compiled = |preamble| grammars.compile_after(Some(preamble), constraint).unwrap();
        for (preamble, text, expected) in [
            (Preamble::Until { close: "</t>" }, "hm < é</t>\n\n12", true),
            (Preamble::Until { close: "</t>" }, "</t>7", true),
            (Preamble::Until { close: "</t>" }, "12", false),
            (Preamble::Until { close: "</t>" }, "a</t>b", false),
            (Preamble::Until { close: "<tool>" }, "a <tool>7", true),
            (between, "<t>a</t>12", true),
            (between, "7", true),
            (between, "<t>a7", false),
            (messages, "<tool>c12", true),
            (messages, "<tool>ahm b<tool><tool>ab<tool><tool>c7", true),
            (messages, "<tool>ahm 7", false),
        ] {
            let grammar = compiled(preamble);
            let is_followed = is_followed(&vocabulary, &grammar, text);
            assert_eq!(is_followed, expected, "{constraint:?} after {preamble:?}: {text}");
        }
    }
}

#[test]
fn formats_of_structural_tags_compose_and_special_tokens_are_tokens() {
    let digits = json!({"type": "regex", "pattern": "[0-9]{1,3}"});
    let tag = json!({"type": "tag", "begin": "<tool>x", "content": digits, "end": "."});
    let think = json!({"type": "tag", "begin": "<a>", "content": {"type": "any_text"}, "end": "</a>"});
    let called = json!({"type": "triggered_tags", "triggers": ["<tool>"], "tags": [tag], "at_least_one": true,
        "stop_after_first": true});
    let listed =
        json!({"type": "tags_with_separator", "tags": [tag], "separator": ", ", "at_least_one": true});
    let format = |format: serde_json::Value| {
        Constraint::StructuralTag(json!({"type": "structural_tag", "format": format}))
    };
    let vocabulary = Vocabulary::byte_level();
    let sequence = format(json!({"type": "sequence", "elements": [think, called]}));
    for text in random_texts(&vocabulary, &sequence, 10) {
        assert!(
            text.starts_with("<a>") && text.contains("</a><tool>x") && text.ends_with('.'),
            "{text}"
        );
    }
    for text in random_texts(&vocabulary, &format(listed), 10) {
        assert!(
            text.split(", ")
                .all(|part| part.starts_with("<tool>x") && part.ends_with('.')),
            "{text}"
        );
    }
    let either = json!({"type": "or", "elements": [{"type": "const_string", "value": "no"}, {"type": "grammar", "grammar": "root ::= \"yes\""}]});
    for text in random_texts(&vocabulary, &format(either), 5) {
        assert!(["no", "yes"].contains(&text.as_str()));
    }
    let grammar = vocabulary.grammars().compile(&format(tag)).unwrap();
    let mark = vocabulary.eos - 1;
    assert_eq!(allowed(&mut grammar.follow(), &vocabulary), [mark]);
}

#[test]
fn malformed_constraints_are_refused() {
    let grammar = |text: &str| Constraint::Grammar(text.to_owned());
    let tag = |format: serde_json::Value| Constraint::StructuralTag(json!({"format": format}));
    let any = json!({"type": "any_text"});
    let cases = [
        (Constraint::Regex("[.*".to_owned()), "unclosed"),
        (Constraint::Regex("(?<=a)b".to_owned()), "look-around"),
        (Constraint::Regex(String::new()), "empty"),
        (Constraint::Choice(Vec::new()), "empty"),
        (grammar(""), "empty"),
        (grammar("foo"), "Expected"),
        (grammar("root ::= x"), "rule x"),
        (grammar("root ::= \"a"), "line 1"),
        (grammar("root ::= [z-a]"), "line 1"),
        (grammar("x ::= \"a\""), "root"),
        (grammar("root ::= root"), "no text matches"),
        (grammar("root ::= \"a\"\nroot ::= \"b\""), "twice"),
        (grammar("root ::= \"a\"{1001}"), "1000"),
        (grammar("start: x\nx: x"), "no text matches"),
        (Constraint::StructuralTag(json!({})), "format"),
        (
            tag(json!({"type": "qwen_xml_parameter", "json_schema": {}})),
            "qwen_xml_parameter",
        ),
        (
            tag(json!({"type": "sequence", "elements": [any, any]})),
            "free text",
        ),
        (tag(json!({"type": "tag", "begin": "a", "end": "b"})), "content"),
        (
            tag(
                json!({"type": "triggered_tags", "triggers": ["<x"], "tags": [{"begin": "<y>", "content": any, "end": "."}]}),
            ),
            "trigger",
        ),
    ];
    for (constraint, named) in cases {
        let error = refusal(&constraint).to_string();
        assert!(error.contains(named), "{constraint:?}: {error}");
    }
}

#[test]
fn the_parts_of_a_structural_tag_have_the_bounds_of_constraints() {
    let brackets = "(".repeat(10_000);
    for content in [
        json!({"type": "regex", "pattern": brackets}),
        json!({"type": "grammar", "grammar": format!("root ::= {brackets}")}),
        json!({"type": "grammar", "grammar": "r: \"a\"\n".repeat(2001)}),
    ] {
        let tag = json!({"format": {"type": "tag", "begin": "<a>", "content": content, "end": "</a>"}});
        let error = refusal(&Constraint::StructuralTag(tag));
        assert!(matches!(error, GrammarError::TooLarge { .. }), "{error}");
    }
}

#[test]
fn hostile_sizes_are_refused_and_hostile_depths_do_no_harm() {
    let sizes = [
        Constraint::Choice(vec![String::new(); 10_001]),
        Constraint::Choice(vec!["x".repeat(300_000)]),
        Constraint::Regex("a".repeat(300_000)),
        Constraint::Regex("(".repeat(101)),
        Constraint::Grammar("start: \"a\"\n".repeat(30_000)),
        Constraint::Grammar(format!("root ::= {}", "(".repeat(101))),
        Constraint::JsonSchema(json!({"const": "x".repeat(1 << 20)})),
        Constraint::StructuralTag(json!({"format": "x".repeat(1 << 20)})),
        Constraint::Grammar("r: \"a\"\n".repeat(2001)),
    ];
    for constraint in sizes {
        assert!(matches!(refusal(&constraint), GrammarError::TooLarge { .. }));
    }
    let chain = |n: usize| {
        (0..n)
            .map(|idx| format!("r{idx}: r{}\n", idx + 1))
            .collect::<String>()
    };
    let grammars = Vocabulary::byte_level().grammars();
    // These may compile or not, but the process must survive.
    let _ = grammars.compile(&Constraint::Grammar(format!(
        "start: r0\n{}r1900: \"a\"\n",
        chain(1900)
    )));
    let _ = grammars.compile(&Constraint::Grammar(
        "root ::= ".to_owned() + &"[a-z]* ".repeat(2000),
    ));
    let greedy = [
        Constraint::Regex("((a{1000}){1000}){1000}".to_owned()),
        Constraint::Regex("(a|b)*a(a|b){20000}".to_owned()),
        Constraint::JsonSchema(json!({"type": "string", "pattern": "(a|b)*a(a|b){60000}"})),
    ];
    for constraint in greedy {
        let Ok(grammar) = grammars.compile(&constraint) else {
            continue;
        };
        let mut follower = grammar.follow();
        // It continues, or fails with an error.
        let goes_on =
            |_: &i32| follower.mask().is_ok() && follower.advance(u32::from(b'a')) == Ok(Followed::GoesOn);
        (0..100).take_while(goes_on).count();
    }
}

#[test]
fn any_of_several_end_tokens_ends_an_answer_only_where_the_grammar_allows_it() {
    let words = [&b"a"[..], b"b", b"</s>", b"<end>"].map(|word| (word.to_vec(), word.len() > 1));
    let grammars = Grammars::new(&TokenBytes::of_words(words), &[2, 3, 900], 4).unwrap();
    let grammar = grammars.compile(&Constraint::Regex("ab*".to_owned())).unwrap();
    let mut follower = grammar.follow();
    assert_eq!(follower.mask().unwrap().words()[0], 0b0001);
    assert_eq!(follower.advance(0), Ok(Followed::GoesOn));
    assert_eq!(follower.mask().unwrap().words()[0], 0b1110);
    assert_eq!(follower.advance(3), Ok(Followed::Complete));
    let mut other = grammar.follow();
    other.mask().unwrap();
    assert!(other.advance(1).is_err(), "the mask does not allow this token");
    assert!(other.mask().is_err(), "a failed answer continued");
}

#[test]
fn a_lexer_that_is_expensive_to_make_is_refused() {
    let grammars = Vocabulary::byte_level().grammars();
    let multiple = |of: u32| Constraint::JsonSchema(json!({"type": "integer", "multipleOf": of}));
    for of in [7, 60, 1000, 1001, 9973, 1_000_000] {
        assert!(grammars.compile(&multiple(of)).is_ok(), "a multiple of {of}");
    }
    // llguidance itself bounds none of these: the first character leads to the expensive part.
    let behind = |first: &str| {
        let part = |last: &str| format!("/x|{first}(a|b)*{last}(a|b){{16}}/");
        let grammar = format!("start: A\nA: {} & {} & ~/.*ab.*ab.*ab.*/", part("a"), part("b"));
        Constraint::Grammar(grammar)
    };
    for constraint in [
        multiple(99_991),
        multiple(300_007),
        multiple(999_983),
        behind("y"),
    ] {
        let error = refusal(&constraint).to_string();
        assert!(error.contains("too complex"), "{constraint:?}: {error}");
    }
}

#[test]
fn the_answers_of_a_request_share_one_lexer() {
    let vocabulary = Vocabulary::byte_level();
    let regex = Constraint::Regex("(a|b)*a(a|b){8}".to_owned());
    let grammar = vocabulary.grammars().compile(&regex).unwrap();
    let fuel = |follower: &mut Follower| {
        for token in b"abbabaabbbaaabab".map(u32::from) {
            assert!(allowed(follower, &vocabulary).contains(&token));
            follower.advance(token).unwrap();
        }
        follower.fuel_spent
    };
    let first = fuel(&mut grammar.follow());
    assert!(first > 0);
    // After one token, another answer has counted what the lexer made for the first one; the rest needs nothing new.
    let mut other = grammar.follow();
    other.mask().unwrap();
    other.advance(u32::from(b'a')).unwrap();
    other.mask().unwrap();
    assert_eq!(other.fuel_spent, first);
    assert_eq!(fuel(&mut grammar.follow()), first);
}

#[test]
fn an_answer_whose_grammar_needs_too_many_states_fails_with_a_reason() {
    let vocabulary = Vocabulary::byte_level();
    let regex = Constraint::Regex("(a|b)*a(a|b){30}".to_owned());
    let grammar = vocabulary.grammars().compile(&regex).unwrap();
    let mut random = Random(3);
    let mut follower = grammar.follow();
    let error = loop {
        let token = [u32::from(b'a'), u32::from(b'b')][random.below(2)];
        match follower.mask() {
            Ok(_) => follower.advance(token).unwrap(),
            Err(error) => break error,
        };
    };
    assert!(error.to_string().contains("too many"), "{error}");
    assert!(grammar.follow().mask().is_err(), "the lexer is shared");
}

#[test]
fn triggers_and_ends_are_written_once_and_bounded() {
    let schema = json!({"type": "integer"});
    let older = |n: usize, n_different: usize| {
        let triggers: Vec<String> = (0..n).map(|idx| format!("<{}", idx % n_different)).collect();
        let structure = json!({"begin": "<0>", "schema": schema, "end": "</0>"});
        let others = (1..n_different)
            .map(|idx| json!({"begin": format!("<{idx}>"), "schema": schema, "end": format!("</{idx}>")}));
        let structures: Vec<serde_json::Value> = std::iter::once(structure).chain(others).collect();
        Constraint::StructuralTag(json!({"structures": structures, "triggers": triggers}))
    };
    let tokens = SpecialTokens::of(&Vocabulary::byte_level().tokens);
    let lark = |constraint: &Constraint| constraint.lark(&tokens).unwrap();
    assert_eq!(lark(&older(10_000, 1)), lark(&older(1, 1)));
    let lengths = [16, 32, 64].map(|n| lark(&older(n, n)).len());
    let per_trigger = (lengths[1] - lengths[0]) / 16;
    assert!(
        lengths[2] - lengths[1] < 33 * per_trigger,
        "not linear: {lengths:?}"
    );
    let ends = |n: usize| {
        let ends: Vec<String> = (0..n).map(|idx| format!("</{idx}>")).collect();
        let any = json!({"type": "any_text"});
        Constraint::StructuralTag(
            json!({"format": {"type": "tag", "begin": "<a>", "content": any, "end": ends}}),
        )
    };
    for many in [older(65, 65), ends(65)] {
        assert!(matches!(refusal(&many), GrammarError::TooLarge { size: 65, .. }));
    }
    for fitting in [older(64, 64), ends(64)] {
        assert!(Vocabulary::byte_level().grammars().compile(&fitting).is_ok());
    }
}

#[test]
fn many_lexemes_that_match_one_text_are_refused() {
    let regexes = |n: usize| {
        (1..=n)
            .map(|idx| format!("a{{1,{idx}}}[b-z]*"))
            .collect::<Vec<_>>()
    };
    let lark = |n: usize| {
        let alternatives: Vec<String> = regexes(n).iter().map(|regex| format!("/{regex}/")).collect();
        Constraint::Grammar(format!("start: {}", alternatives.join(" | ")))
    };
    let terminals = |n: usize| {
        let definitions: String = (1..=n).map(|idx| format!("T{idx}: \"a\"{{1,{idx}}}\n")).collect();
        let names: Vec<String> = (1..=n).map(|idx| format!("T{idx}")).collect();
        Constraint::Grammar(format!("start: {}\n{definitions}", names.join(" | ")))
    };
    let gbnf = |n: usize| {
        let alternatives: Vec<String> = (1..=n).map(|idx| format!("[a]{{1,{idx}}}")).collect();
        Constraint::Grammar(format!("root ::= {}", alternatives.join(" | ")))
    };
    let schema = |n: usize| {
        let object = |regex: &String| json!({"type": "object", "properties": {"x": {"type": "string", "pattern": regex}}});
        Constraint::JsonSchema(json!({"anyOf": regexes(n).iter().map(object).collect::<Vec<_>>()}))
    };
    let tag = |n: usize| {
        let format = |regex: &String| json!({"type": "regex", "pattern": regex});
        let elements: Vec<serde_json::Value> = regexes(n).iter().map(format).collect();
        Constraint::StructuralTag(json!({"format": {"type": "or", "elements": elements}}))
    };
    let grammars = Vocabulary::byte_level().grammars();
    for of in [
        &lark as &dyn Fn(usize) -> Constraint,
        &terminals,
        &gbnf,
        &schema,
        &tag,
    ] {
        assert!(grammars.compile(&of(100)).is_ok());
        let error = refusal(&of(600));
        assert!(
            matches!(error, GrammarError::TooLarge { size: 600, .. }),
            "{error}"
        );
    }
}
