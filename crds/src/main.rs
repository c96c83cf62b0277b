//! `crds`: writes the generated files below the repository's root (`make generate`).

use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    for file in crds::generate::files() {
        let path = Path::new(&root).join(file.path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, file.text)?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
