//! The layout of each crate: its rooms, which are files and folders below `src`, and what each may import.
//!
//! A room imports only rooms that stand below it in its table, so that there is no circle. A row names exactly what its
//! room imports: an arrow that is not in the table fails, and so does one that the code no longer has.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::{Imports, circles};
use super::root;

/// A room, and the names of the rooms that it imports.
type Row = (&'static str, &'static str);

/// The rooms of each folder, from the top to the bottom.
const FOLDERS: &[(&str, &[Row])] = &[
    (
        "runtime/src",
        &[
            ("server", "config engine http listen serving startup telemetry"),
            ("cli", "bench config fetch inspect"),
            ("bench", "batch config engine model serving"),
            (
                "fuzzing",
                "api chat_template config grammar model parsers preparation tokenizer",
            ),
            ("inspect", "config model serving"),
            (
                "http",
                "api client clock config engine model parsers preparation serving startup telemetry tokenizer",
            ),
            (
                "serving",
                "api batch chat_template config engine fetch grammar model parsers startup tokenizer",
            ),
            (
                "api",
                "batch chat_template client config engine grammar model parsers preparation telemetry tokenizer",
            ),
            ("telemetry", "engine"),
            ("engine", "batch client grammar"),
            ("parsers", "grammar"),
            ("grammar", "tokenizer"),
            ("chat_template", "jinja tokenizer"),
            ("tokenizer", ""),
            ("preparation", "client"),
            ("jinja", ""),
            ("model", "batch"),
            ("batch", ""),
            ("fetch", "clock listen startup"),
            ("startup", ""),
            ("config", ""),
            ("listen", ""),
            ("client", ""),
            ("clock", ""),
        ],
    ),
    (
        "operator/src",
        &[
            (
                "controller",
                "context demand health leader metrics names reconcile watched",
            ),
            ("reconcile", "autoscaler context names pods polls watched written"),
            ("gateway", "metrics names probe"),
            ("console", "names"),
            ("leader", ""),
            ("health", "metrics"),
            (
                "context",
                "autoscaler backoff demand metrics names polls probe watched written",
            ),
            ("written", "names"),
            ("watched", "names"),
            ("autoscaler", "demand probe"),
            ("demand", "names probe"),
            ("polls", "probe"),
            ("pods", "names"),
            ("probe", "names"),
            ("names", ""),
            ("metrics", ""),
            ("backoff", ""),
        ],
    ),
    (
        "operator/src/console",
        &[
            ("proxy", "error state"),
            ("guard", "error state"),
            ("state", ""),
            ("yaml", "error"),
            ("error", ""),
            ("assets", ""),
        ],
    ),
    (
        "operator/src/gateway",
        &[
            (
                "routes",
                "balance body destination directory error forward limits listing loads metrics quotas usage",
            ),
            ("watching", "directory"),
            ("server", ""),
            ("listing", "directory"),
            (
                "forward",
                "balance body destination directory error held loads metrics quotas",
            ),
            ("quotas", "bucket directory error limits metrics usage"),
            ("held", "body directory error metrics"),
            ("reload", "metrics"),
            ("tls", ""),
            ("metrics", "directory usage"),
            ("usage", "body"),
            ("loads", "directory"),
            ("destination", "directory error"),
            ("body", "error"),
            ("error", "bucket directory"),
            ("limits", "directory"),
            ("bucket", ""),
            ("balance", ""),
            ("directory", ""),
        ],
    ),
    (
        "operator/src/reconcile",
        &[
            ("wake", "apply"),
            ("status", "api_error children observed plan quota"),
            ("apply", "api_error children claim_size fetch observed versions"),
            ("versions", "observed"),
            ("validate", "observed plan"),
            ("fetch", "api_error children mounts observed"),
            ("memory_limit", "api_error observed"),
            ("mounts", ""),
            ("pod_order", "observed plan"),
            ("prefetch", "observed plan"),
            ("claim_size", ""),
            ("api_error", "quota"),
            ("quota", ""),
            ("children", "build plan"),
            ("build", "plan"),
            ("observed", ""),
            ("plan", ""),
        ],
    ),
    (
        "crds/src",
        &[
            ("generate", "modeldeployment settings worker_config"),
            ("worker_config", "settings"),
            ("wake", "keys modeldeployment"),
            ("modeldeployment", "keys schema settings"),
            ("settings", "schema"),
            ("schema", ""),
            ("startup", "failure"),
            ("load", ""),
            ("demand", ""),
            ("keys", ""),
            ("failure", ""),
            ("conditions", ""),
        ],
    ),
    (
        "cli/src",
        &[
            (
                "commands",
                "arguments cards cluster completion display endpoint error krew manifest readiness reference replica runpod",
            ),
            ("completion", "arguments cluster"),
            ("endpoint", "cluster error readiness replica"),
            ("readiness", "cluster display error"),
            ("replica", "cluster error"),
            ("arguments", "cluster"),
            ("cluster", "error reference"),
            ("error", "manifest reference runpod"),
            ("runpod", "manifest reference"),
            ("manifest", "reference"),
            ("cards", "display"),
            ("krew", ""),
            ("display", ""),
            ("reference", ""),
        ],
    ),
    (
        "kernels/src",
        &[
            ("gemm", "activation columns cpu cuda error norm route then weight"),
            ("sample", "cuda error"),
            ("keys", "cuda error heads kv_cache norm rope weight"),
            ("scale", "cpu cuda error weight"),
            ("rows", "columns cuda error"),
            ("route", "cuda error"),
            ("rope", "cpu error heads"),
            ("probe", "cpu error"),
            ("norm", "cpu cuda error heads"),
            ("mapped_file", ""),
            ("heads", "error"),
            ("embed", "cpu cuda error then weight"),
            ("then", ""),
            ("columns", "error"),
            ("clamp", "cpu cuda error"),
            ("attention", "cpu cuda error kv_cache weight"),
            ("kv_cache", "cpu cuda error weight"),
            ("weight", "cpu cuda error"),
            ("allocations", ""),
            ("add", "cpu cuda error"),
            ("activation", "cpu cuda error"),
            ("cpu", "error"),
            ("error", "cuda"),
            ("cuda", ""),
        ],
    ),
];

#[test]
fn rooms_import_only_what_is_below_them() {
    for (folder, rows) in FOLDERS {
        let found = rooms(folder);
        let expected: BTreeMap<String, BTreeSet<String>> = rows
            .iter()
            .map(|(room, below)| ((*room).to_owned(), names(below)))
            .collect();
        for (room, imported) in &found {
            assert_eq!(
                Some(imported),
                expected.get(room),
                "what {folder}/{room} imports, and its row in the table"
            );
        }
        for (at, (room, below)) in rows.iter().enumerate() {
            assert!(found.contains_key(*room), "{folder} has no room {room}");
            let is_below = |name: &String| rows[at + 1..].iter().any(|(room, _)| room == name);
            let above: Vec<String> = names(below).into_iter().filter(|name| !is_below(name)).collect();
            assert!(
                above.is_empty(),
                "{folder}/{room} imports {above:?}, which stand above it"
            );
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    for name in super::CRATES {
        let imports = Imports::read(&root().join(name).join("src"));
        let arrows = imports
            .arrows()
            .into_iter()
            .map(|(module, to)| (module.clone(), to))
            .collect();
        assert_eq!(circles(&arrows), [], "circles of imports in {name}");
    }
}

/// What each room of a folder imports of the others.
fn rooms(folder: &str) -> BTreeMap<String, BTreeSet<String>> {
    let (name, inside) = folder.split_once("/src").expect("a folder of sources");
    let imports = Imports::read(&root().join(name).join("src"));
    let prefix: Vec<String> = inside
        .split('/')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    let room = |module: &Vec<String>| module.strip_prefix(prefix.as_slice())?.first().cloned();
    let mut rooms: BTreeMap<String, BTreeSet<String>> = imports
        .modules()
        .filter_map(room)
        .map(|room| (room, BTreeSet::new()))
        .collect();
    for (from, to) in imports.arrows() {
        let Some(from) = room(from) else { continue };
        // What a folder's own file defines is above the rooms of the folder.
        let names = to
            .iter()
            .filter(|to| to.starts_with(&prefix))
            .map(|to| room(to).unwrap_or_else(|| folder.to_owned()));
        rooms
            .get_mut(&from)
            .expect("a room")
            .extend(names.filter(|name| *name != from));
    }
    rooms
}

fn names(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
