//! Answers that follow grammars: the same alone and in any batch, each on its own, and a failure's matter alone.

use super::*;
use crate::grammar::{Constraint, Followed, Grammar, Grammars, Mask};
use crate::tokenizer::TokenBytes;

/// The text of each token of the model; the last ones have none.
const WORDS: [&str; 44] = [
    "{", "}", "\"", ":", ",", "</s>", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d",
    "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "-", ".", " ", "\n", "[", "]", "true", "null", "\":",
    "{\"", "\"}", "12", "ab", "abc",
];

fn grammars() -> Grammars {
    let words = WORDS.iter().enumerate();
    let words = words.map(|(id, word)| (word.as_bytes().to_vec(), id as u32 == EOS));
    Grammars::new(&TokenBytes::of_words(words), &[EOS], VOCAB_SIZE).unwrap()
}

fn compiled(grammars: &Grammars) -> Vec<Grammar> {
    let schema = r#"{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["c", "d"]}},
        "required": ["a", "b"], "additionalProperties": false}"#;
    let constraints = [
        Constraint::JsonSchema(schema.parse().unwrap()),
        Constraint::Regex("[a-f]{2,30}".to_owned()),
        Constraint::Choice(["abc", "abcd", "12"].map(String::from).to_vec()),
    ];
    constraints
        .iter()
        .map(|constraint| grammars.compile(constraint).unwrap())
        .collect()
}

fn guided_request(idx: usize, grammars: &[Grammar]) -> GenerateRequest {
    let mut request = request(idx);
    // What they forbid might be all that a grammar allows.
    Arc::make_mut(&mut request.sampling).bad_words.clear();
    GenerateRequest {
        grammar: grammars.get(idx % (grammars.len() + 1)).cloned(),
        min_tokens: 0,
        stop_token_ids: Vec::new(),
        ..request
    }
}

/// An answer by definition.
fn expected(request: &GenerateRequest) -> (Vec<u32>, FinishReason) {
    let mut follower = request.grammar.as_ref().map(Grammar::follow);
    let mut generated = Vec::new();
    let prompt: Vec<u32> = request.prompt.ids().collect();
    let (mut text, mut hash) = Reference::of(&groups(&[None]), &request.prompt, &[]);
    loop {
        let mask = follower.as_mut().map(|follower| follower.mask().unwrap());
        let draw = Draw {
            params: &request.sampling,
            prompt: &prompt,
            generated: &generated,
            forbidden: &[],
            mask: mask.as_ref().map(Mask::words),
            seed: request.sampling.seed.unwrap(),
        };
        let token = sample(&hash.logits(VOCAB_SIZE), &draw).unwrap().token;
        let followed = follower.as_mut().map(|follower| follower.advance(token).unwrap());
        if token == EOS {
            return (generated, FinishReason::Eos(EOS));
        }
        generated.push(token);
        hash = text.push(token);
        if followed == Some(Followed::Complete) {
            return (generated, FinishReason::Complete);
        }
        if Some(generated.len()) == request.max_tokens {
            return (generated, FinishReason::Length);
        }
    }
}

#[tokio::test]
async fn guided_answers_are_those_alone_in_batches_and_after_preemptions() {
    for depth in DEPTHS {
        let grammars = compiled(&grammars());
        let requests: Vec<_> = (0..60).map(|idx| guided_request(idx, &grammars)).collect();
        let answers: Vec<_> = requests.iter().map(expected).collect();
        assert!(
            answers
                .iter()
                .any(|(_, reason)| *reason == FinishReason::Complete)
        );
        for (config, is_scarce) in [(config(), false), (scarce(), true), (swapping(), true)] {
            let engine = engine_of_depth(depth, config);
            let tickets = engine.submit(requests.clone()).unwrap();
            for (mut ticket, expected) in tickets.into_iter().zip(&answers) {
                assert_eq!(&answer(&mut ticket).await, expected);
            }
            assert_eq!(engine.counters().preemptions.get() > 0, is_scarce);
        }
    }
}

#[tokio::test]
async fn each_of_several_answers_follows_the_grammar_on_its_own() {
    for depth in DEPTHS {
        let engine = engine_of_depth(depth, config());
        for grammar in compiled(&grammars()) {
            let several = GenerateRequest {
                n: 4,
                grammar: Some(grammar),
                ..guided_request(5, &[])
            };
            let tickets = engine.submit(vec![several.clone()]).unwrap();
            for (mut ticket, idx) in tickets.into_iter().zip(0..) {
                let mut alone = several.clone();
                Arc::make_mut(&mut alone.sampling).seed = several.sampling.seed.map(|seed| seed + idx);
                assert_eq!(answer(&mut ticket).await, expected(&alone));
            }
        }
    }
}

#[tokio::test]
async fn a_grammar_that_cannot_be_followed_fails_its_own_request() {
    for depth in DEPTHS {
        let engine = engine_of_depth(depth, config());
        let grammars = grammars();
        // No token begins with x.
        let hopeless = Constraint::Regex("(a|ab|abc)x".to_owned());
        let guided = GenerateRequest {
            grammar: Some(grammars.compile(&hopeless).unwrap()),
            ..request(1)
        };
        let mut tickets = engine.submit(vec![guided, request(2)]).unwrap();
        let (tokens, end) = read(&mut tickets[0]).await;
        assert_eq!(tokens.len(), 1);
        assert!(
            matches!(end, Event::Failed(RequestFailure::Grammar(_))),
            "{end:?}"
        );
        assert_eq!(answer(&mut tickets[1]).await, expected_answer(&request(2)));
    }
}
