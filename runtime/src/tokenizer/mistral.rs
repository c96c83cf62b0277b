//! What Mistral's own repositories define in code and not in files: the form of a prompt, by the version of the
//! tokenizer. Source: mistral-common, whose tokens the tests compare.

use super::config::TokenizerConfig;

/// The special tokens, in the order of their ids in a `tekken.json` that does not list them.
pub(super) const MARKS: [&str; 20] = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
];

/// The prompt of versions 3 to 13, which differ in where the system's message and the tools are, and in how calls are
/// written.
const TEMPLATE: &str = include_str!("mistral.jinja");

/// The versions whose prompts [`TEMPLATE`] writes.
const VERSIONS: [u32; 4] = [3, 7, 11, 13];

/// Completes a configuration for a tokenizer of a version such as `v3` or `v7m1`. A template of the repository wins.
pub(super) fn complete(config: &mut TokenizerConfig, version: &str) {
    config.bos_token.get_or_insert_with(|| "<s>".to_owned());
    config.eos_token.get_or_insert_with(|| "</s>".to_owned());
    config.add_bos_token.get_or_insert(true);
    let number = version.trim_start_matches('v').split('m').next();
    let number = number.and_then(|number| number.parse().ok());
    if let Some(number) = number.filter(|number| VERSIONS.contains(number)) {
        let versioned = || format!("{{%- set version = {number} %}}\n{TEMPLATE}");
        config.chat_template.get_or_insert_with(versioned);
    }
}
