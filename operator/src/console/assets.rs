//! The files of the pages, part of the binary: no other server is asked for anything.

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

const PAGE: &str = include_str!("../../console/index.html");

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// Name and content of each file.
        const FILES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../console/", $name)))),*];
    };
}

files! {
    "app.css", "app.js", "charts.js", "detail.js", "dom.js", "form.js", "icon.svg", "kubernetes.js", "list.js",
    "playground.js", "schema.js", "snippets.js", "editor.js",
}

/// The one page.
pub(super) async fn page() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], PAGE)
}

/// One of the files.
pub(super) async fn asset(Path(name): Path<String>) -> Response {
    let Some((name, content)) = FILES.iter().find(|(known, _)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kind = match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    };
    ([(header::CONTENT_TYPE, kind)], *content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the first page with all its files.
    const BYTES_MAX: usize = 100 * 1000;

    #[test]
    fn the_page_is_small_and_every_file_is_found() {
        let n_bytes = PAGE.len() + FILES.iter().map(|(_, content)| content.len()).sum::<usize>();
        assert!(n_bytes < BYTES_MAX, "{n_bytes}");
        let imported = FILES.iter().flat_map(|(name, content)| {
            let lines = content.lines().filter(|line| line.starts_with("import "));
            lines.filter_map(move |line| Some((name, line.split("\"./").nth(1)?.split('"').next()?)))
        });
        for (name, import) in imported {
            assert!(
                FILES.iter().any(|(known, _)| *known == import),
                "{name} imports {import}"
            );
        }
        for part in PAGE.split("/assets/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(
                FILES.iter().any(|(known, _)| *known == name),
                "the page names {name}"
            );
        }
    }
}
