//! The names of the model for clients.

/// At least one name. Requests that name no model are for the first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedNames {
    /// The name of requests that name no model, of metrics and of jobs.
    pub first: String,
    /// Further names of the same model.
    pub others: Vec<String>,
}

impl ServedNames {
    /// The names of a list; `None` if it is empty.
    pub fn from_list(names: Vec<String>) -> Option<Self> {
        let mut names = names.into_iter();
        Some(Self {
            first: names.next()?,
            others: names.collect(),
        })
    }

    /// Every name, the first one first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.first)
            .chain(&self.others)
            .map(String::as_str)
    }

    /// Whether this is one of the names.
    pub fn contains(&self, name: &str) -> bool {
        self.iter().any(|served| served == name)
    }

    /// Every name, for an error that lists them.
    pub fn to_vec(&self) -> Vec<String> {
        self.iter().map(str::to_string).collect()
    }
}
