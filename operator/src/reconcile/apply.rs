//! Writes the children by server-side apply, and deletes those that the plan does not have.
//!
//! A child that is as it was built is not written. Objects that somebody else owns never get here: `validate` refuses
//! their names.

use std::sync::Mutex;

use crds::ModelDeployment;
use k8s_openapi::{
    Resource,
    api::{apps::v1::Deployment, core::v1::PersistentVolumeClaim},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, Preconditions},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{
    api_error::{ApiError, Class},
    children::{Applied, Built, CHILDREN, Child, Kind, Presence, Resources, Writer},
    claim_size, fetch,
    observed::Observed,
    versions,
};
use crate::{
    context::Context,
    names::{APPLIED_HASH, FIELD_MANAGER, Names, REPLICAS_MANAGER},
    written::{Settled, owned_fields},
};

/// What applying led to.
#[derive(Debug)]
pub struct Effect {
    /// The children as the API server has them now.
    pub children: Resources<Applied>,
    /// What could not be had as the spec requests it, although the model can be served.
    pub notes: Vec<String>,
}

/// Writes every child that differs, then deletes those that the plan does not have, and versions that no pod template
/// uses.
///
/// # Errors
/// When the API server refuses an object or cannot be reached. The Deployment is written only after what its pods need.
pub async fn apply(
    context: &Context,
    object: &ModelDeployment,
    observed: &Observed,
    mut built: Resources<Built>,
) -> Result<Effect, ApiError> {
    let names = Names::of(&object.name_any());
    let live_claim = observed.live.typed(&names.claim);
    let size = built
        .claim
        .as_mut()
        .and_then(|claim| claim_size::keep(claim, live_claim.as_ref()?));
    let writer = ServerSideApply {
        context,
        object,
        observed,
        confirmed: OnceCell::new(),
        notes: Mutex::new(size.into_iter().collect()),
    };
    let children = built.write(&writer).await?;
    for child in children.absent() {
        if let Some(live) = observed.live.owned(object, child.kind, child.name(&names)) {
            delete(context, child, live).await?;
        }
    }
    let versioned = |child: &&Child| child.presence == Presence::Versioned;
    for child in CHILDREN.iter().filter(versioned) {
        let current = children.config_map.name_any();
        let unused = versions::unused(&context.client, object, observed, &current).await;
        for live in unused.map_err(ApiError::of(format!("read ReplicaSets of {}", names.main)))? {
            delete(context, child, live).await?;
        }
    }
    let notes = writer.notes.into_inner().expect("no holder panics");
    Ok(Effect { children, notes })
}

/// Writes the number of replicas alone, if the Deployment exists: nothing else that is wrong stops scaling.
///
/// # Errors
/// When the API server refuses the write or cannot be reached.
pub async fn scale(
    context: &Context,
    object: &ModelDeployment,
    observed: &Observed,
    replicas: i32,
) -> Result<(), ApiError> {
    let name = Names::of(&object.name_any()).main;
    let live: Option<Deployment> = observed.live.typed(&name);
    let current = live.as_ref().and_then(|live| live.spec.as_ref()?.replicas);
    let Some(owned) = observed.live.owned(object, Deployment::KIND, &name) else {
        return Ok(());
    };
    if current == Some(replicas) {
        return Ok(());
    }
    write_replicas(context, owned, replicas).await
}

/// Writes the number of replicas of this Deployment alone.
///
/// # Errors
/// When the API server refuses the write or cannot be reached.
pub async fn write_replicas(context: &Context, live: &ObjectMeta, replicas: i32) -> Result<(), ApiError> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&live.namespace), text(&live.name));
    let api: Api<Deployment> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "apiVersion": Deployment::API_VERSION,
        "kind": Deployment::KIND,
        "metadata": {"name": name, "uid": live.uid},
        "spec": {"replicas": replicas},
    });
    let params = PatchParams::apply(REPLICAS_MANAGER).force();
    let written = api.patch(&name, &params, &Patch::Apply(&patch)).await;
    let written = written.map_err(ApiError::of(format!("write the replicas of Deployment {name}")))?;
    context
        .written
        .remember(Deployment::KIND, &written.metadata, None);
    Ok(())
}

struct ServerSideApply<'a> {
    context: &'a Context,
    object: &'a ModelDeployment,
    observed: &'a Observed,
    /// Set once the API server was asked whether the ModelDeployment still exists.
    confirmed: OnceCell<()>,
    notes: Mutex<Vec<String>>,
}

impl Writer for ServerSideApply<'_> {
    type Error = ApiError;

    async fn write<K: Kind>(&self, mut child: K) -> Result<K, ApiError> {
        let hash = hash(&child);
        child.annotations_mut().insert(APPLIED_HASH.into(), hash.clone());
        let live: Option<K> = self.observed.live.typed(&child.name_any());
        if let Some(live) = live.as_ref() {
            // The API server refuses the write if the object was replaced since it was read.
            child.meta_mut().uid = live.uid();
            let settled = self.context.written.settled(K::KIND, live.meta(), &hash);
            if settled.is_some() || contains(&json!(live), &json!(child)) {
                self.note(settled.and_then(|settled| settled.note));
                return Ok(live.clone());
            }
        }
        match self.patch(&child, live.as_ref()).await {
            Ok(written) => {
                self.remember(&written, hash, None);
                Ok(written)
            }
            Err(error) => self.without_change(error, live, hash),
        }
    }
}

impl ServerSideApply<'_> {
    async fn patch<K: Kind>(&self, child: &K, live: Option<&K>) -> Result<K, ApiError> {
        let (namespace, name) = (child.namespace().unwrap_or_default(), child.name_any());
        self.confirmed.get_or_try_init(|| self.confirm()).await?;
        let api: Api<K> = Api::namespaced(self.context.client.clone(), &namespace);
        // A new object has no other owner of its fields; if one has appeared, the name is somebody else's.
        let params = match live {
            Some(_) => PatchParams::apply(FIELD_MANAGER).force(),
            None => PatchParams::apply(FIELD_MANAGER),
        };
        api.patch(&name, &params, &Patch::Apply(child))
            .await
            .map_err(ApiError::of(format!("write {} {name}", K::KIND)))
    }

    /// Asks whether the ModelDeployment still exists: the watch may be late, and children of a deleted one would stay.
    async fn confirm(&self) -> Result<(), ApiError> {
        let newest = fetch::object(self.context, self.object).await?;
        let is_same = newest.is_some_and(|newest| {
            newest.uid() == self.object.uid() && newest.metadata.deletion_timestamp.is_none()
        });
        match is_same {
            true => Ok(()),
            false => Err(ApiError::gone(format!(
                "find ModelDeployment {}",
                self.object.name_any()
            ))),
        }
    }

    /// An existing claim that cannot be changed serves as it is: pods do not need the change.
    fn without_change<K: Kind>(&self, error: ApiError, live: Option<K>, hash: String) -> Result<K, ApiError> {
        let is_refused = matches!(error.class(), Class::Spec | Class::Quota | Class::Policy);
        match live {
            Some(live) if K::KIND == PersistentVolumeClaim::KIND && is_refused => {
                let note = format!(
                    "the claim {} stays as it is: {}",
                    live.name_any(),
                    error.failure().message
                );
                self.note(Some(note.clone()));
                self.remember(&live, hash, Some(note));
                Ok(live)
            }
            Some(_) | None => Err(error),
        }
    }

    fn remember<K: Kind>(&self, written: &K, hash: String, note: Option<String>) {
        let settled = Settled {
            hash,
            fields: owned_fields(written.meta()),
            note,
        };
        self.context
            .written
            .remember(K::KIND, written.meta(), Some(settled));
    }

    fn note(&self, note: Option<String>) {
        self.notes.lock().expect("no holder panics").extend(note);
    }
}

const HASH_CHARS: usize = 16;

fn hash<K: Kind>(built: &K) -> String {
    let bytes = serde_json::to_vec(built).expect("an object serializes");
    blake3::hash(&bytes).to_hex()[..HASH_CHARS].to_string()
}

/// Whether `live` has every value of `built`. Kubernetes leaves out false, 0 and empty values, and adds defaults.
fn contains(live: &Value, built: &Value) -> bool {
    match (live, built) {
        (Value::Object(live), Value::Object(built)) => built.iter().all(|(key, built)| match live.get(key) {
            Some(live) => contains(live, built),
            None => is_empty(built),
        }),
        (Value::Array(live), Value::Array(built)) => {
            live.len() == built.len() && live.iter().zip(built).all(|(live, built)| contains(live, built))
        }
        (live, built) => live == built,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Deletes a child that the ModelDeployment owns.
async fn delete(context: &Context, child: &Child, live: &ObjectMeta) -> Result<(), ApiError> {
    let (namespace, name) = (
        live.namespace.clone().unwrap_or_default(),
        live.name.clone().unwrap_or_default(),
    );
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &child.resource());
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: live.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    match api.delete(&name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(ApiError::of(format!("delete {} {name}", child.kind))(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_object_may_have_more_fields_but_no_other_values() {
        let built = json!({"spec": {"replicas": 1, "paused": false, "list": [{"name": "a", "value": "1"}], "volume": {"emptyDir": {}}}});
        let live = |change: fn(&mut Value)| {
            let mut live = json!({
                "metadata": {"generation": 2},
                "spec": {"replicas": 1, "list": [{"name": "a", "value": "1", "protocol": "TCP"}], "volume": {"emptyDir": {}}},
                "status": {"replicas": 1},
            });
            change(&mut live);
            contains(&live, &built)
        };
        assert!(live(|_| {}));
        for change in [
            (|live: &mut Value| live["spec"]["replicas"] = json!(2)) as fn(&mut Value),
            |live| live["spec"]["paused"] = json!(true),
            |live| live["spec"]["list"][0]["value"] = json!("2"),
            |live| {
                live["spec"]["list"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"name": "b"}))
            },
            |live| live["spec"]["list"] = json!([]),
        ] {
            assert!(!live(change));
        }
    }
}
