//! `import-runpod`: the YAML goes to standard output, what became of the variables to standard error.

use std::{io::Read, path::Path};

use crate::{
    arguments::ImportRunpod,
    error::Error,
    runpod::{self, Options},
};

pub(super) fn run(arguments: &ImportRunpod, namespace: Option<String>) -> Result<(), Error> {
    let block = runpod::read(&text(&arguments.file)?)?;
    let options = Options {
        name: arguments.name.clone(),
        namespace,
        gpus: arguments.gpus,
    };
    let import = runpod::import(&block, &options)?;
    eprint!("{}", import.report());
    print!("{}", import.yaml());
    Ok(())
}

fn text(file: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|error| Error::Local {
        operation: format!("read {}", file.display()),
        reason: error.to_string(),
    })
}
