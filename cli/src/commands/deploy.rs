//! `deploy`: writes a ModelDeployment, applies it, and waits until it is ready.

use std::time::{Duration, Instant};

use crds::ModelDeployment;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{
    arguments::Deploy,
    cluster::{Cluster, Ownership, Target},
    error::Error,
    manifest::{self, Manifest, ManifestError},
    readiness::{self, Patience},
};

pub(super) async fn run(arguments: &Deploy, target: &Target) -> Result<(), Error> {
    let deployment = deployment(arguments, target.namespace.as_deref())?;
    if arguments.dry_run {
        print!("{}", manifest::yaml(&deployment));
        return Ok(());
    }
    let cluster = Cluster::connect(target).await?;
    let ownership = match arguments.force {
        true => Ownership::TakeOver,
        false => Ownership::Respect,
    };
    let start = Instant::now();
    let applied = cluster.apply(&deployment, ownership).await?;
    let name = applied.name_any();
    let verb = match applied.metadata.generation {
        Some(1) => "created",
        _ => "changed",
    };
    eprintln!(
        "{verb} ModelDeployment '{name}' in namespace {}",
        cluster.namespace
    );
    if arguments.no_wait {
        eprintln!(
            "next:  kubectl slipway status {name} -n {} --watch",
            cluster.namespace
        );
        return Ok(());
    }
    let timeout = Duration::from_secs(arguments.timeout_seconds);
    let ready = readiness::wait(&cluster, &name, timeout, Patience::UntilFailure).await?;
    let status = ready.status.unwrap_or_default();
    println!(
        "{name} is ready after {} s: {} replicas of {} at {} (inside the cluster)",
        start.elapsed().as_secs(),
        status.summary.unwrap_or_default(),
        status.model_name.unwrap_or_default(),
        status.url.unwrap_or_default(),
    );
    println!("next:  kubectl slipway chat {name} -n {}", cluster.namespace);
    Ok(())
}

/// The object of the command line.
fn deployment(arguments: &Deploy, namespace: Option<&str>) -> Result<ModelDeployment, Error> {
    let name = arguments
        .name
        .clone()
        .unwrap_or_else(|| manifest::name_of(&arguments.model));
    let mut manifest = Manifest::new(&name, namespace)?;
    put_model(&mut manifest, arguments)?;
    let texts = [
        ("spec.model.huggingFace.revision", &arguments.revision),
        ("spec.model.huggingFace.endpoint", &arguments.endpoint),
        ("spec.resources.cpu", &arguments.cpu),
        ("spec.resources.memory", &arguments.memory),
        ("servedModelName", &arguments.served_name),
        ("maxModelLen", &arguments.max_model_len),
        ("dtype", &arguments.dtype),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            manifest.set(name, value)?;
        }
    }
    if let Some(replicas) = arguments.replicas {
        manifest.put("spec.replicas", replicas.into());
    }
    if let Some(count) = arguments.gpus {
        manifest.put("spec.resources.gpu.count", count.into());
    }
    if let Some(size) = &arguments.cache {
        manifest.put("spec.cache", json!({"type": "PVC", "size": size}));
    }
    for (path, reference) in [
        ("spec.model.tokenSecretRef", &arguments.token_secret),
        ("spec.auth.apiKeysSecretRef", &arguments.api_keys_secret),
    ] {
        if let Some(reference) = reference {
            manifest.put(path, secret_key(reference));
        }
    }
    for pair in &arguments.env {
        let (name, value) = split(pair)?;
        manifest.put_variable(name, value);
    }
    for pair in &arguments.set {
        let (name, value) = split(pair)?;
        manifest.set(name, value)?;
    }
    Ok(manifest.finish()?)
}

/// A repository of the hub, or `pvc:CLAIM/DIRECTORY`.
fn put_model(manifest: &mut Manifest, arguments: &Deploy) -> Result<(), ManifestError> {
    match arguments.model.strip_prefix("pvc:") {
        Some(claim) => {
            let (claim, path) = claim
                .split_once('/')
                .map_or((claim, None), |(claim, path)| (claim, Some(path)));
            manifest.set("spec.model.pvc.claimName", claim)?;
            path.map_or(Ok(()), |path| manifest.set("spec.model.pvc.path", path))
        }
        None => manifest.set("spec.model.huggingFace.repo", &arguments.model),
    }
}

/// `NAME` or `NAME:KEY`.
fn secret_key(reference: &str) -> Value {
    match reference.split_once(':') {
        Some((name, key)) => json!({"name": name, "key": key}),
        None => json!({"name": reference}),
    }
}

fn split(pair: &str) -> Result<(&str, &str), Error> {
    pair.split_once('=').ok_or_else(|| Error::Argument {
        reason: format!("'{pair}' is not NAME=VALUE"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Command, parse_from};

    fn deploy(arguments: &[&str]) -> Result<String, Error> {
        let words = ["kubectl-slipway", "deploy"].iter().chain(arguments);
        let Command::Deploy(parsed) = parse_from(words.copied()).command else {
            unreachable!("deploy was given")
        };
        deployment(&parsed, Some("models")).map(|deployment| manifest::yaml(&deployment))
    }

    #[test]
    fn flags_are_fields() {
        let yaml = deploy(&[
            "meta-llama/Llama-3.1-8B-Instruct",
            "--gpus=1",
            "--replicas=2",
            "--max-model-len=8192",
            "--dtype=bfloat16",
            "--memory=32Gi",
            "--cache=50Gi",
            "--token-secret=hub:token",
            "--api-keys-secret=keys",
            "--served-name=llama,chat",
            "--env=MY_FLAG=1",
            "--set=enablePrefixCaching=false",
            "--set=DRAIN_TIMEOUT_SECONDS=30",
            "--set=scheduling.nodeSelector={zone: a}",
        ]);
        insta::assert_snapshot!(yaml.unwrap());
    }

    #[test]
    fn a_claim_is_a_model() {
        let yaml = deploy(&["pvc:models/qwen/small", "--name=small"]).unwrap();
        assert!(
            yaml.contains("claimName: models") && yaml.contains("path: qwen/small"),
            "{yaml}"
        );
    }

    #[test]
    fn what_cannot_be_set_is_named() {
        for (arguments, words) in [
            (&["a/b", "--set=maxModelLength=3"][..], "did you mean maxModelLen"),
            (
                &["a/b", "--set=maxModelLen=many"],
                "maxModelLen: expected a whole number",
            ),
            (&["a/b", "--set=PORT=1"], "the Service's target"),
            (&["a/b", "--set=HF_TOKEN=hf_x"], "it is a secret"),
            (
                &["a/b", "--set=TRUST_REMOTE_CODE=1"],
                "TRUST_REMOTE_CODE has no field",
            ),
            (&["a/b", "--set=seed"], "not NAME=VALUE"),
            (&["a/b", "--name=Upper"], "not a name"),
        ] {
            let error = deploy(arguments).unwrap_or_else(|error| error.to_string());
            assert!(error.contains(words), "{arguments:?}: {error}");
        }
    }
}
