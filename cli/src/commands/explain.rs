//! `explain`: what a setting is, from the table that the runtime itself uses.

use crate::{arguments::Explain, error::Error, reference};

pub(super) fn run(arguments: &Explain) -> Result<(), Error> {
    let Some(name) = &arguments.setting else {
        print!("{}", reference::overview());
        return Ok(());
    };
    let text = reference::explain(name).map_err(|nearest| Error::NoSetting {
        name: name.clone(),
        nearest,
    })?;
    print!("{text}");
    Ok(())
}
