//! What becomes of a variable of another server that is not a setting here.

/// A variable of worker-vllm, vLLM or TI-ONE that is not a setting of this version. Its flag is its name in kebab case.
#[derive(Clone, Copy, Debug)]
pub struct Foreign {
    /// Its name.
    pub name: &'static str,
    /// Other names of it.
    pub aliases: &'static [&'static str],
    /// Whether its flag may stand without a value.
    pub is_switch: bool,
    /// The values that request what this version does anyway.
    pub harmless: Harmless,
    /// Why such a value has no effect, for log and status.
    pub why: &'static str,
    /// What to do in place of another value.
    pub instead: &'static str,
}

/// Values of a variable that change nothing.
#[derive(Clone, Copy, Debug)]
pub enum Harmless {
    /// Every value.
    Any,
    /// These values, in any spelling of switches and numbers.
    Only(&'static [&'static str]),
}

/// A variable of which no value has an effect.
pub(super) const fn any(name: &'static str, why: &'static str) -> Foreign {
    Foreign {
        name,
        aliases: &[],
        is_switch: false,
        harmless: Harmless::Any,
        why,
        instead: "",
    }
}

/// A variable of which these values have no effect.
pub(super) const fn only(
    name: &'static str,
    harmless: &'static [&'static str],
    why: &'static str,
    instead: &'static str,
) -> Foreign {
    Foreign {
        name,
        aliases: &[],
        is_switch: false,
        harmless: Harmless::Only(harmless),
        why,
        instead,
    }
}

impl Foreign {
    /// The same with a flag that may stand without a value.
    pub(super) const fn switch(mut self) -> Foreign {
        self.is_switch = true;
        self
    }

    /// The same with further names.
    pub(super) const fn also(mut self, aliases: &'static [&'static str]) -> Foreign {
        self.aliases = aliases;
        self
    }

    /// Every name of the variable, its own first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// Every flag, without dashes.
    pub fn flags(&self) -> impl Iterator<Item = String> {
        self.names()
            .map(|name| name.to_ascii_lowercase().replace('_', "-"))
    }

    /// Whether a value requests what happens anyway.
    pub(super) fn has_no_effect(&self, text: &str) -> bool {
        match self.harmless {
            Harmless::Any => true,
            Harmless::Only(values) => values.iter().any(|value| canonical(value) == canonical(text)),
        }
    }
}

/// One spelling of a switch, a number or a word.
fn canonical(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    match text.as_str() {
        "true" | "yes" | "on" => "1".into(),
        "false" | "no" | "off" => "0".into(),
        other => other
            .parse::<f64>()
            .map_or(text.clone(), |number| number.to_string()),
    }
}
