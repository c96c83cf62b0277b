//! The body of `GET /startupz`: how far a starting process has come. The runtime writes it and the operator reads it.
//!
//! Types only. A reader accepts the bodies of other versions: absent fields have defaults, unknown fields are ignored.

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        IntoDeserializer,
        value::{Error as NameError, StringDeserializer},
    },
};

use crate::failure::Failure;

/// Path of the status, in the runtime and in the download container.
pub const PATH: &str = "/startupz";

/// What a starting process is doing. The variants are in the order of the stages; some stages may be skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Settings are read; no bytes are moved yet.
    #[default]
    Starting,
    /// Files are copied from the Hub to the disk.
    Downloading,
    /// Weights are copied from the disk to the device.
    Loading,
    /// The engine runs its first steps and sizes its cache.
    WarmingUp,
    /// The process has done what it was started for: it serves, or for `fetch` the files are complete.
    Ready,
}

/// The body of `GET /startupz`, and the numbers of a progress line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StartupStatus {
    /// The current stage; a stage that only another version has is read as [`Stage::Starting`].
    #[serde(deserialize_with = "stage_or_default")]
    pub stage: Stage,
    /// Bytes of this stage that are done, including those that were done before the stage began.
    pub bytes_done: u64,
    /// Bytes of this stage; absent while unknown, or where the stage is not measured in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
    /// `bytes_done` of `bytes_total`, rounded down, so 100 means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// Bytes per second over the last ten seconds.
    pub rate_per_second: u64,
    /// Seconds left at that rate; absent while the rate or the total is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// What failed last and is being retried; absent after a retry succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Failure>,
    /// The facts about the model that are known so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelFacts>,
    /// Whether the stage is [`Stage::Ready`].
    pub done: bool,
}

/// What a process knows about its model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelFacts {
    /// Commit of the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Architecture that the checkpoint's configuration names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Size of the weights in bytes; before they are loaded, of the files to download.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// What computes the model: `CPU`, or the name of a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Longest context that is served, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<u64>,
    /// Bytes of memory that the process takes at most; absent where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

fn stage_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Stage, D::Error> {
    let name: StringDeserializer<NameError> = String::deserialize(deserializer)?.into_deserializer();
    Ok(Stage::deserialize(name).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Reason;

    #[test]
    fn a_body_of_another_version_is_read() {
        let body = r#"{"stage": "Compiling", "bytesDone": 5, "bytesTotal": null, "percent": 50, "later": 1,
            "model": {"revision": "abc", "bytes": null, "later": 1}}"#;
        let status: StartupStatus = serde_json::from_str(body).unwrap();
        let expected = StartupStatus {
            bytes_done: 5,
            percent: Some(50),
            model: Some(ModelFacts {
                revision: Some("abc".into()),
                ..ModelFacts::default()
            }),
            ..StartupStatus::default()
        };
        assert_eq!(status, expected);
        assert_eq!(
            serde_json::from_str::<StartupStatus>("{}").unwrap(),
            StartupStatus::default()
        );
    }

    #[test]
    fn a_status_round_trips() {
        let status = StartupStatus {
            stage: Stage::WarmingUp,
            bytes_done: 7,
            bytes_total: Some(10),
            percent: Some(70),
            rate_per_second: 3,
            eta_seconds: Some(1),
            problem: Some(Failure::new(
                Reason::DownloadStalled,
                "no bytes for 60 s",
                "check the network",
            )),
            model: Some(ModelFacts {
                max_model_len: Some(512),
                ..ModelFacts::default()
            }),
            done: false,
        };
        let body = serde_json::to_string(&status).unwrap();
        assert!(
            body.contains(r#""bytesDone":7"#) && body.contains(r#""model":{"maxModelLen":512}"#),
            "{body}"
        );
        assert_eq!(serde_json::from_str::<StartupStatus>(&body).unwrap(), status);
    }
}
