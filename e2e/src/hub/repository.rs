//! What a folder looks like as a repository: files, their Git and LFS identities, the commit.
//!
//! Owns reading and hashing the folder. Formats: Git's blob id is SHA-1 over `blob <size>\0<content>`, an LFS
//! object's is SHA-256 over its content (git-lfs specification). Must not know HTTP.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::error::HubError;

/// File names that the Hub's default `.gitattributes` puts into LFS, as far as models use them.
const LFS_EXTENSIONS: [&str; 8] = ["safetensors", "bin", "gguf", "pt", "pth", "onnx", "h5", "model"];
/// Any file larger than this must be in LFS.
const PLAIN_BYTES_MAX: u64 = 10 << 20;
/// Length of a git-lfs pointer file of a ten-digit size; the Hub reports it and no client needs it.
const LFS_POINTER_BYTES: u64 = 135;

/// Reads folders as repositories, hashing each file once per change.
#[derive(Debug)]
pub(super) struct Scanner {
    root: PathBuf,
    hashed: Mutex<HashMap<PathBuf, Hashed>>,
}

#[derive(Clone, Debug)]
struct Hashed {
    size: u64,
    modified: SystemTime,
    sha256: String,
    blob_id: String,
}

/// A folder as it was at one moment.
#[derive(Clone, Debug)]
pub(super) struct Repository {
    /// 40 hexadecimal digits that follow from names and content.
    pub(super) commit: String,
    /// Files by path, in order.
    pub(super) files: Vec<RepoFile>,
}

/// One file of a repository.
#[derive(Clone, Debug)]
pub(super) struct RepoFile {
    pub(super) path: String,
    pub(super) location: PathBuf,
    pub(super) size: u64,
    pub(super) blob_id: String,
    sha256: String,
}

impl Scanner {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            hashed: Mutex::default(),
        }
    }

    /// The repository `owner/name`, or `None` where no such folder is.
    pub(super) fn repository(&self, id: &str) -> io::Result<Option<Repository>> {
        let folder = self.root.join(id);
        let inside = Path::new(id)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !inside || !folder.is_dir() {
            return Ok(None);
        }
        let mut files = Vec::new();
        self.collect(&folder, "", &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut commit = Sha256::new();
        for file in &files {
            commit.update(format!("{} {}\n", file.path, file.sha256));
        }
        Ok(Some(Repository {
            commit: hex::encode(&commit.finalize()[..20]),
            files,
        }))
    }

    fn collect(&self, folder: &Path, prefix: &str, files: &mut Vec<RepoFile>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let (entry, location) = entry.map(|entry| (entry.file_name(), entry.path()))?;
            let path = format!("{prefix}{}", entry.to_string_lossy());
            // A mounted ConfigMap keeps its versions in `..data`; such folders are no content.
            if path.starts_with("..") {
                continue;
            }
            if location.is_dir() {
                self.collect(&location, &format!("{path}/"), files)?;
            } else {
                let Hashed {
                    size,
                    sha256,
                    blob_id,
                    ..
                } = self.hash(&location)?;
                files.push(RepoFile {
                    path,
                    location,
                    size,
                    blob_id,
                    sha256,
                });
            }
        }
        Ok(())
    }

    fn hash(&self, location: &Path) -> io::Result<Hashed> {
        let metadata = fs::metadata(location)?;
        let (size, modified) = (metadata.len(), metadata.modified()?);
        let mut hashed = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hashed.get(location)
            && (known.size, known.modified) == (size, modified)
        {
            return Ok(known.clone());
        }
        let (mut sha256, mut blob) = (Sha256::new(), Sha1::new_with_prefix(format!("blob {size}\0")));
        let (mut file, mut buffer) = (fs::File::open(location)?, vec![0; 1 << 16]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n_bytes => {
                    sha256.update(&buffer[..n_bytes]);
                    blob.update(&buffer[..n_bytes]);
                }
            }
        }
        let (sha256, blob_id) = (hex::encode(sha256.finalize()), hex::encode(blob.finalize()));
        let fresh = Hashed {
            size,
            modified,
            sha256,
            blob_id,
        };
        hashed.insert(location.to_owned(), fresh.clone());
        Ok(fresh)
    }
}

impl Repository {
    pub(super) fn check_revision(&self, revision: &str) -> Result<(), HubError> {
        if revision == "main" || revision == self.commit {
            return Ok(());
        }
        Err(HubError::revision_not_found(revision))
    }

    pub(super) fn file(&self, path: &str) -> Result<&RepoFile, HubError> {
        self.files
            .iter()
            .find(|file| file.path == path)
            .ok_or_else(HubError::entry_not_found)
    }
}

impl RepoFile {
    pub(super) fn is_lfs(&self) -> bool {
        let extension = Path::new(&self.path).extension().and_then(|text| text.to_str());
        self.size > PLAIN_BYTES_MAX || extension.is_some_and(|text| LFS_EXTENSIONS.contains(&text))
    }

    /// What the Hub names the content by: the SHA-256 of an LFS file, the Git blob id of another.
    pub(super) fn identity(&self) -> &str {
        if self.is_lfs() {
            &self.sha256
        } else {
            &self.blob_id
        }
    }

    /// The file as an element of `siblings`.
    pub(super) fn sibling_json(&self, blobs: bool) -> serde_json::Value {
        let mut json = serde_json::json!({ "rfilename": self.path });
        if blobs {
            json["blobId"] = self.blob_id.clone().into();
            json["size"] = self.size.into();
        }
        if blobs && self.is_lfs() {
            json["lfs"] = serde_json::json!({ "sha256": self.sha256, "size": self.size, "pointerSize": LFS_POINTER_BYTES });
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blob_ids_are_gits_and_the_commit_follows_the_content() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("acme/m");
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(folder.join("sub/a.txt"), "hello\n").unwrap();
        let scanner = Scanner::new(root.path().to_owned());
        let before = scanner.repository("acme/m").unwrap().unwrap();
        // `printf 'hello\n' | git hash-object --stdin`
        assert_eq!(
            before.file("sub/a.txt").unwrap().blob_id,
            "ce013625030ba8dba906f756967f9e9ca394464a"
        );
        fs::write(folder.join("sub/a.txt"), "hello again\n").unwrap();
        let after = scanner.repository("acme/m").unwrap().unwrap();
        assert_ne!(before.commit, after.commit);
        assert_eq!(after.commit.len(), 40);
    }

    #[test]
    fn nothing_outside_the_root_is_a_repository() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("inside")).unwrap();
        let scanner = Scanner::new(root.path().join("inside"));
        assert!(scanner.repository("..").unwrap().is_none());
        assert!(scanner.repository("../inside").unwrap().is_none());
    }
}
