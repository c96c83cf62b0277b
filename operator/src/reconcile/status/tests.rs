//! Tests of the status: made from pods written by hand; conditions, phase and failure are checked.

use crds::{
    conditions::ConditionType,
    failure::{Failure, Reason},
    modeldeployment::{AutoscalingStatus, Phase},
    startup::{self, ModelFacts, StartupStatus},
};
use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::runtime::events::EventType;
use serde_json::json;

use crate::autoscaler::{
    Activity, Autoscaled,
    decision::{Cause, Decision},
};

use super::{
    super::{
        api_error::ApiError,
        fixtures::{
            HUB, Recorder, at, container_status, hash_of, installation, object, plan, pod, ready_pod,
        },
        observed::ServiceAnswer,
        plan::PodOrder,
        validate,
    },
    publish::{new_scaling, transition},
    *,
};

/// The status of a Deployment whose controller has finished.
fn settled(n_pods: i32) -> serde_json::Value {
    json!({"observedGeneration": 1, "replicas": n_pods, "updatedReplicas": n_pods, "readyReplicas": n_pods})
}

struct World {
    object: ModelDeployment,
    observed: Observed,
    deployment_status: serde_json::Value,
    managed_fields: serde_json::Value,
    pod_order: PodOrder,
    notes: Vec<String>,
}

impl World {
    fn new(object: ModelDeployment, pods: Vec<Pod>) -> Self {
        let n_pods = i32::try_from(pods.len()).unwrap();
        Self {
            object,
            observed: Observed {
                pods,
                ..Observed::default()
            },
            deployment_status: settled(n_pods),
            managed_fields: json!([]),
            pod_order: PodOrder::NewFirst,
            notes: Vec::new(),
        }
    }

    fn status_at(&self, now: Timestamp) -> ModelDeploymentStatus {
        let mut plan = match validate::plan(&self.object, &self.observed, &installation()) {
            Ok(plan) => plan,
            Err(refusal) => return compute(&self.object, &self.observed, Outcome::Refused(&refusal), now),
        };
        plan.pod_order = self.pod_order;
        let mut applied = Recorder::default().applied(&plan);
        applied.deployment.metadata.generation = Some(1);
        applied.deployment.metadata.managed_fields =
            serde_json::from_value(self.managed_fields.clone()).unwrap();
        applied.deployment.status = Some(serde_json::from_value(self.deployment_status.clone()).unwrap());
        compute(
            &self.object,
            &self.observed,
            Outcome::Applied {
                plan: &plan,
                children: &applied,
                notes: &self.notes,
            },
            now,
        )
    }

    fn status(&self) -> ModelDeploymentStatus {
        self.status_at(at("10:05:00"))
    }
}

fn condition(status: &ModelDeploymentStatus, type_: ConditionType) -> &Condition {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_.as_str())
        .unwrap()
}

fn ready_reason(status: &ModelDeploymentStatus) -> String {
    let ready = condition(status, ConditionType::Ready);
    format!("{}/{}", ready.status, ready.reason)
}

/// Every condition on one line, as in `Accepted+ ModelReady-Downloading`.
fn line(status: &ModelDeploymentStatus) -> String {
    let word = |condition: &Condition| match condition.status.as_str() {
        "True" => format!("{}+{}", condition.type_, condition.reason),
        _ => format!("{}-{}", condition.type_, condition.reason),
    };
    // `Reconciling` and `Stalled` repeat `Ready` for kstatus; a test of their own compares them.
    let shown = status
        .conditions
        .iter()
        .filter(|condition| !matches!(condition.type_.as_str(), "Reconciling" | "Stalled"));
    shown.map(word).collect::<Vec<_>>().join(" ")
}

fn with_status(status: &str) -> World {
    let object = object(HUB);
    let hash = hash_of(&object);
    World::new(object, vec![pod("chat-1", &hash, status)])
}

const SCHEDULED: &str =
    r#"conditions: [{type: PodScheduled, status: "True", lastTransitionTime: "2026-11-21T10:00:02Z"}]"#;

fn in_container(list: &str, name: &str, rest: &str) -> World {
    with_status(&format!("{SCHEDULED}\n{}", container_status(list, name, rest)))
}

fn fetch_container(rest: &str) -> World {
    in_container("initContainerStatuses", "fetch", rest)
}

fn runtime_container(rest: &str) -> World {
    in_container("containerStatuses", "runtime", rest)
}

#[test]
fn a_start_from_nothing_to_a_loading_engine() {
    let object = object(HUB);
    let hash = hash_of(&object);
    let nothing = World::new(object, Vec::new()).status();
    assert_eq!(
        line(&nothing),
        "Accepted+Accepted ModelReady-Pending Scheduled-Scheduling EngineReady-Pending Available-NoReadyReplica \
         Progressing+Scaling Ready-Scaling"
    );
    assert_eq!(
        (nothing.phase, nothing.summary.as_deref()),
        (Some(Phase::Pending), Some("0/1"))
    );

    let starting = with_status(SCHEDULED).status();
    assert_eq!(
        (ready_reason(&starting).as_str(), starting.phase),
        ("False/Starting", Some(Phase::Pending))
    );

    let downloading = fetch_container("state: {running: {}}").status();
    assert_eq!(
        line(&downloading),
        "Accepted+Accepted ModelReady-Downloading Scheduled+Scheduled EngineReady-Pending Available-NoReadyReplica \
         Progressing+Downloading Ready-Downloading"
    );
    assert_eq!(downloading.phase, Some(Phase::Downloading));

    let mut loading = runtime_container("state: {running: {}}");
    let fetched = container_status(
        "initContainerStatuses",
        "fetch",
        "state: {terminated: {exitCode: 0}}",
    );
    let fetched = pod("chat-1", &hash, &fetched)
        .status
        .unwrap()
        .init_container_statuses;
    loading.observed.pods[0]
        .status
        .as_mut()
        .unwrap()
        .init_container_statuses = fetched;
    let loading = loading.status();
    assert_eq!(
        line(&loading),
        "Accepted+Accepted ModelReady+Downloaded Scheduled+Scheduled EngineReady-Loading Available-NoReadyReplica \
         Progressing+Loading Ready-Loading"
    );
    assert_eq!(loading.phase, Some(Phase::Loading));
}

#[test]
fn a_ready_replica_makes_everything_true() {
    let object = object(HUB);
    let hash = hash_of(&object);
    let ready = World::new(object, vec![ready_pod("chat-1", &hash)]).status();
    assert_eq!(
        line(&ready),
        "Accepted+Accepted ModelReady+Downloaded Scheduled+Scheduled EngineReady+Loaded Available+Serving \
         Progressing-Stable Ready+Ready"
    );
    assert_eq!(
        (ready.phase, ready.summary.as_deref()),
        (Some(Phase::Ready), Some("1/1"))
    );
    assert_eq!(ready.url.as_deref(), Some("http://chat.team.svc/v1"));
    assert_eq!(
        ready.selector.as_deref(),
        Some("slipway.dev/model-deployment=chat")
    );
    assert_eq!(ready.observed_generation, Some(3));
    let cold = ready.cold_start.unwrap().last;
    assert_eq!(
        (
            cold.scheduled_seconds,
            cold.image_seconds + cold.download_seconds,
            cold.load_seconds,
            cold.total_seconds
        ),
        (2, 58, 40, 100)
    );
}

#[test]
fn ready_needs_every_pod_new_and_the_deployment_settled() {
    let object = object("{model: {huggingFace: {repo: acme/model}}, replicas: 2}");
    let hash = hash_of(&object);
    let current = || vec![ready_pod("chat-1", &hash), ready_pod("chat-2", &hash)];
    let mut world = World::new(object, current());
    assert_eq!(ready_reason(&world.status()), "True/Ready");

    world.deployment_status = json!({"observedGeneration": 0, "replicas": 2, "updatedReplicas": 2});
    assert_eq!(
        ready_reason(&world.status()),
        "False/Pending",
        "the Deployment controller has not processed the spec yet"
    );
    world.deployment_status = settled(2);

    world.observed.pods.push(ready_pod("chat-0", "of-before"));
    let status = world.status();
    assert_eq!(ready_reason(&status), "False/RollingOut");
    assert_eq!(
        (status.replicas, status.updated_replicas, status.phase),
        (3, 2, Some(Phase::Updating))
    );
    assert_eq!(condition(&status, ConditionType::Available).status, "True");

    world.observed.pods[2].metadata.deletion_timestamp = Some(Time(at("10:04:00")));
    assert_eq!(
        ready_reason(&world.status()),
        "False/RollingOut",
        "an older pod that drains still exists"
    );

    world.observed.pods.truncate(1);
    assert_eq!(ready_reason(&world.status()), "False/Scaling");
    world.observed.pods = current();
    let mut leaving = ready_pod("chat-3", &hash);
    leaving.metadata.deletion_timestamp = Some(Time(at("10:04:00")));
    world.observed.pods.push(leaving);
    let status = world.status();
    assert_eq!(
        ready_reason(&status),
        "True/Ready",
        "a surplus pod that drains does not matter"
    );
    assert_eq!(condition(&status, ConditionType::Progressing).reason, "Scaling");
}

#[test]
fn a_pod_that_the_service_does_not_reach_yet_is_not_available() {
    let object = object(HUB);
    let hash = hash_of(&object);
    let mut world = World::new(object, vec![ready_pod("chat-1", &hash)]);
    world.observed.service = ServiceAnswer::NoAnswer;
    let status = world.status_at(at("10:01:41"));
    assert_eq!(ready_reason(&status), "False/Pending");
    assert_eq!(condition(&status, ConditionType::Available).status, "False");
    assert_eq!(next_check(&status).as_secs(), 2);

    assert_eq!(
        ready_reason(&world.status_at(at("10:02:00"))),
        "True/Ready",
        "the operator itself cannot reach the Service"
    );
    world.observed.service = ServiceAnswer::Answered;
    assert_eq!(ready_reason(&world.status_at(at("10:01:41"))), "True/Ready");
}

#[test]
fn zero_replicas_are_what_the_spec_requests_and_not_available() {
    let object = object("{model: {huggingFace: {repo: acme/model}}, replicas: 0}");
    let hash = hash_of(&object);
    let mut world = World::new(object, vec![ready_pod("chat-1", &hash)]);
    let draining = world.status();
    assert_eq!(ready_reason(&draining), "False/Scaling");
    assert_eq!(
        condition(&draining, ConditionType::Available).status,
        "True",
        "until its pods are gone"
    );
    world.observed.pods.clear();
    world.deployment_status = settled(0);
    let status = world.status();
    assert_eq!(
        line(&status),
        "Accepted+Accepted ModelReady-ScaledToZero Scheduled-ScaledToZero EngineReady-ScaledToZero \
         Available-ScaledToZero Progressing-Stable Ready+ScaledToZero"
    );
    assert_eq!(
        (status.phase, status.summary.as_deref()),
        (Some(Phase::ScaledToZero), Some("0/0"))
    );
}

#[test]
fn every_reason_a_container_can_give_reaches_ready_and_last_failure() {
    for reason in Reason::ALL {
        let message = Failure::new(*reason, "it went wrong", "do this").to_termination_message();
        let exit = format!(
            "state: {{waiting: {{reason: CrashLoopBackOff}}}}, lastState: {{terminated: {{exitCode: {}, message: {}}}}}",
            reason.exit_code(),
            json!(message)
        );
        for world in [fetch_container(&exit), runtime_container(&exit)] {
            let status = world.status();
            assert_eq!(ready_reason(&status), format!("False/{reason}"));
            let ready = condition(&status, ConditionType::Ready);
            assert_eq!(ready.message, "it went wrong. Remedy: do this");
            let last = status.last_failure.unwrap();
            assert_eq!(
                (last.reason.as_str(), last.remedy.as_str()),
                (reason.as_str(), "do this")
            );
            assert_eq!(last.exit_code, Some(i32::from(reason.exit_code())));
            assert_eq!(last.pod, "chat-1");
        }
        let silent = format!("state: {{terminated: {{exitCode: {}}}}}", reason.exit_code());
        assert_eq!(
            ready_reason(&runtime_container(&silent).status()),
            format!("False/{reason}"),
            "by its exit code"
        );
    }
}

#[test]
fn each_message_of_the_kubelet_has_a_reason() {
    let waiting = |reason: &str, message: &str| {
        format!(
            "state: {{waiting: {{reason: {reason}, message: {}}}}}",
            json!(message)
        )
    };
    for (rest, expected) in [
        (waiting("ErrImagePull", "not found"), Reason::ImagePullFailed),
        (waiting("ImagePullBackOff", "Back-off pulling image"), Reason::ImagePullFailed),
        (waiting("InvalidImageName", "couldn't parse"), Reason::ImagePullFailed),
        (waiting("ErrImageNeverPull", "not present with pull policy of Never"), Reason::ImagePullFailed),
        (waiting("CreateContainerConfigError", "secret \"t\" not found"), Reason::SecretMissing),
        (waiting("CreateContainerConfigError", "couldn't find key K in Secret team/t"), Reason::SecretMissing),
        (waiting("CreateContainerConfigError", "image will run as root"), Reason::ContainerStartFailed),
        (waiting("RunContainerError", "no such file"), Reason::ContainerStartFailed),
        (waiting("FailedMount", "SetUp failed for volume \"api-keys\" : secret \"t\" not found"), Reason::SecretMissing),
        (waiting("FailedMount", "references non-existent secret key: K"), Reason::SecretMissing),
        (waiting("FailedMount", "configmap \"company-ca\" not found"), Reason::ContainerStartFailed),
        (waiting("FailedMount", "mount failed: /secret: no such file"), Reason::VolumeNotBound),
        (waiting("FailedAttachVolume", "Multi-Attach error for volume"), Reason::VolumeNotBound),
        ("state: {terminated: {exitCode: 137, reason: OOMKilled}}".into(), Reason::OutOfMemory),
        ("state: {terminated: {exitCode: 101, message: panicked}}".into(), Reason::CrashLoop),
        (
            "state: {terminated: {exitCode: 0, startedAt: '2026-11-21T09:00:00Z', finishedAt: '2026-11-21T09:00:05Z'}}".into(),
            Reason::CrashLoop,
        ),
        (
            "state: {running: {startedAt: '2026-11-21T10:04:55Z'}}, lastState: {terminated: {exitCode: 137, \
             startedAt: '2026-11-21T09:40:00Z', finishedAt: '2026-11-21T10:00:03Z'}}"
                .into(),
            Reason::StartupTimeout,
        ),
    ] {
        let status = runtime_container(&rest).status();
        assert_eq!(ready_reason(&status), format!("False/{expected}"), "{rest}");
        assert!(!status.last_failure.unwrap().remedy.is_empty(), "{rest}");
        assert_eq!(status.phase, Some(Phase::Failed), "{rest}");
        assert_eq!(condition(&runtime_container(&rest).status(), ConditionType::EngineReady).reason, expected.as_str());
    }
}

#[test]
fn objects_that_the_kubelet_has_not_read_are_a_failure_only_if_that_lasts() {
    for kubelet in ["FailedMount", "CreateContainerConfigError"] {
        for kind in ["secret", "configmap"] {
            let message = format!("failed to sync {kind} cache: timed out waiting for the condition");
            let world = fetch_container(&format!(
                "state: {{waiting: {{reason: {kubelet}, message: {}}}}}",
                json!(message)
            ));
            let early = world.status_at(at("10:00:20"));
            assert_eq!(ready_reason(&early), "False/Starting", "{kubelet} {kind}");
            assert_eq!(early.last_failure, None);
            let late = world.status_at(at("10:01:03"));
            assert_eq!(
                ready_reason(&late),
                "False/ContainerStartFailed",
                "{kubelet} {kind}"
            );
        }
    }
}

#[test]
fn each_message_of_the_scheduler_has_a_reason() {
    let gpu = "{model: {huggingFace: {repo: acme/model}}, resources: {gpu: {count: 8}}}";
    for (spec, words, expected) in [
        (
            gpu,
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
            Reason::InsufficientGPU,
        ),
        (
            gpu,
            "0/1 nodes are available: 1 Insufficient cpu.",
            Reason::Unschedulable,
        ),
        (
            HUB,
            "0/1 nodes are available: 1 Insufficient memory.",
            Reason::Unschedulable,
        ),
        (
            HUB,
            "persistentvolumeclaim \"c\" not found",
            Reason::VolumeNotBound,
        ),
        (
            HUB,
            "pod has unbound immediate PersistentVolumeClaims",
            Reason::VolumeNotBound,
        ),
    ] {
        let object = object(spec);
        let status = format!(
            "conditions: [{{type: PodScheduled, status: 'False', reason: Unschedulable, message: {}}}]",
            json!(words)
        );
        let mut pod = pod("chat-1", &hash_of(&object), &status);
        pod.spec.as_mut().unwrap().node_name = None;
        let status = World::new(object, vec![pod]).status();
        assert_eq!(ready_reason(&status), format!("False/{expected}"), "{words}");
        assert_eq!(
            condition(&status, ConditionType::Scheduled).reason,
            expected.as_str()
        );
        assert_eq!(status.phase, Some(Phase::Pending), "it may fit later");
        assert_eq!(status.last_failure.unwrap().container, None);
    }
}

#[test]
fn pods_that_the_api_server_refuses_or_the_kubelet_evicts_have_a_reason() {
    let mut world = World::new(object(HUB), Vec::new());
    world.deployment_status["conditions"] = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: small"}]);
    let status = world.status();
    assert_eq!(ready_reason(&status), "False/PodsRefused");
    assert!(
        condition(&status, ConditionType::Ready)
            .message
            .contains("exceeded quota")
    );

    for (words, expected) in [
        (
            "Usage of EmptyDir volume \"models\" exceeds the limit \"1Gi\".",
            "DiskFull",
        ),
        ("The node was low on resource: ephemeral-storage.", "DiskFull"),
        ("The node was low on resource: memory.", "OutOfMemory"),
        ("Pod was rejected: node affinity", "Unschedulable"),
    ] {
        let mut world = with_status(&format!(
            "{{phase: Failed, reason: Evicted, message: {}}}",
            json!(words)
        ));
        assert_eq!(
            ready_reason(&world.status()),
            format!("False/{expected}"),
            "{words}"
        );
        let hash = hash_of(&world.object);
        world.observed.pods.push(ready_pod("chat-2", &hash));
        world.deployment_status = settled(1);
        let status = world.status();
        assert_eq!(ready_reason(&status), "True/Ready", "a newer pod is fine");
        assert_eq!(status.replicas, 1, "a record of an evicted pod is no replica");
    }
}

#[test]
fn a_refused_spec_keeps_the_running_pods_and_has_a_reason() {
    let good = object(HUB);
    let hash = hash_of(&good);
    let bad = object("{model: {huggingFace: {repo: acme/model}}, env: [{name: MAX_NUM_SEQS, value: many}]}");
    let status = World::new(bad, vec![ready_pod("chat-1", &hash)]).status();
    assert_eq!(ready_reason(&status), "False/InvalidSetting");
    assert_eq!(
        condition(&status, ConditionType::Accepted).reason,
        "InvalidSetting"
    );
    assert_eq!(condition(&status, ConditionType::Available).status, "True");
    assert!(
        condition(&status, ConditionType::Ready)
            .message
            .contains("Remedy: correct MAX_NUM_SEQS")
    );
    assert_eq!(
        (status.observed_generation, status.phase),
        (Some(3), Some(Phase::Failed))
    );
    assert_eq!((status.updated_replicas, status.ready_replicas), (0, 1));
}

#[test]
fn a_failure_is_cleared_after_it_is_over() {
    let crashed = "lastState: {terminated: {exitCode: 16, startedAt: '2026-11-21T10:00:03Z', finishedAt: '2026-11-21T10:00:04Z'}}";
    let running = format!("state: {{running: {{startedAt: '2026-11-21T10:00:10Z'}}}}, {crashed}");
    let mut world = fetch_container(&running);
    assert_eq!(
        ready_reason(&world.status_at(at("10:00:12"))),
        "False/DownloadNotFound",
        "it may crash again at once"
    );
    let settled_again = world.status_at(at("10:01:00"));
    assert_eq!(ready_reason(&settled_again), "False/Downloading");

    world.object.status = Some(world.status_at(at("10:00:12")));
    let downloading = world.status_at(at("10:01:00"));
    assert_eq!(
        downloading.last_failure.unwrap().reason,
        "DownloadNotFound",
        "the record stays until it is ready"
    );
    world.observed.pods = vec![ready_pod("chat-1", &hash_of(&world.object))];
    let ready = world.status();
    assert_eq!(
        (ready_reason(&ready).as_str(), ready.last_failure),
        ("True/Ready", None)
    );
}

#[test]
fn only_pods_of_the_new_template_are_diagnosed() {
    let object = object(HUB);
    let hash = hash_of(&object);
    let failing = container_status(
        "containerStatuses",
        "runtime",
        "state: {terminated: {exitCode: 20}}",
    );
    let world = World::new(
        object,
        vec![ready_pod("chat-0", "of-before"), pod("chat-1", &hash, &failing)],
    );
    let status = world.status();
    assert_eq!(ready_reason(&status), "False/UnsupportedArchitecture");
    assert_eq!(condition(&status, ConditionType::Available).status, "True");

    let world = World::new(
        world.object,
        vec![pod("chat-0", "of-before", &failing), ready_pod("chat-1", &hash)],
    );
    assert_eq!(
        ready_reason(&world.status()),
        "False/RollingOut",
        "the old pod's trouble is over with it"
    );
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let mut world = fetch_container("state: {running: {}}");
    let first = world.status_at(at("10:00:10"));
    world.object.status = Some(first.clone());
    assert_eq!(
        world.status_at(at("10:00:20")),
        first,
        "nothing changed, so nothing is written"
    );

    let hash = hash_of(&world.object);
    world.observed.pods = vec![ready_pod("chat-1", &hash)];
    let second = world.status_at(at("10:01:40"));
    let time = |status: &ModelDeploymentStatus, type_| condition(status, type_).last_transition_time.0;
    assert_eq!(time(&second, ConditionType::Ready), at("10:01:40"));
    assert_eq!(time(&second, ConditionType::Scheduled), at("10:00:10"));
}

#[test]
fn progress_is_shown_and_written_once_per_percent() {
    let mut world = fetch_container("state: {running: {}}");
    let progress = |bytes_done: u64| StartupStatus {
        stage: startup::Stage::Downloading,
        bytes_done,
        bytes_total: Some(3 << 30),
        percent: None,
        rate_per_second: 52_428_800,
        eta_seconds: Some(30),
        ..StartupStatus::default()
    };
    let mut report = |bytes_done: u64| {
        world.observed.startups = [("chat-1".to_string(), progress(bytes_done))].into();
        let status = world.status();
        world.object.status = Some(status.clone());
        status
    };
    let half = report(3 << 29);
    assert_eq!(
        half.progress.as_deref(),
        Some("downloading 50 % (1.5 of 3.0 GiB, 50.0 MiB/s, 30 s left)")
    );
    assert_eq!(half.download.as_ref().unwrap().percent, 50);
    assert_eq!(report((3 << 29) + 1000), half, "the same percentage is no change");
    assert_eq!(report(3 << 30).download.unwrap().percent, 100);

    world.observed.startups.clear();
    let silent = world.status();
    assert_eq!((silent.download, silent.progress), (None, None));
}

#[test]
fn a_failure_that_a_download_retries_is_shown() {
    let mut world = fetch_container("state: {running: {}}");
    let stalled = StartupStatus {
        problem: Some(Failure::new(
            Reason::DownloadStalled,
            "no bytes for 60 s",
            "check the network",
        )),
        bytes_done: 5,
        bytes_total: Some(10),
        ..StartupStatus::default()
    };
    world.observed.startups = [("chat-1".to_string(), stalled)].into();
    let status = world.status();
    assert_eq!(
        (ready_reason(&status).as_str(), status.phase),
        ("False/DownloadStalled", Some(Phase::Downloading))
    );
    assert_eq!(status.download.as_ref().unwrap().percent, 50);
    assert_eq!(status.last_failure.unwrap().container.as_deref(), Some("fetch"));
}

#[test]
fn facts_of_the_model_stay_until_the_spec_changes() {
    let object = object(HUB);
    let hash = hash_of(&object);
    let mut world = World::new(object, vec![ready_pod("chat-1", &hash)]);
    let facts = ModelFacts {
        revision: Some("c0ffee".into()),
        architecture: Some("LlamaForCausalLM".into()),
        bytes: Some(5),
        ..ModelFacts::default()
    };
    let reported = StartupStatus {
        model: Some(facts),
        ..StartupStatus::default()
    };
    world.observed.startups = [("chat-1".to_string(), reported)].into();
    let first = world.status();
    assert_eq!(first.model.as_ref().unwrap().revision.as_deref(), Some("c0ffee"));
    world.object.status = Some(first);
    world.observed.startups.clear();
    assert!(world.status().model.is_some());
    world.object.metadata.generation = Some(4);
    assert_eq!(world.status().model, None, "another spec may be another model");
}

#[test]
fn only_a_change_of_ready_is_an_event() {
    let failing = fetch_container("state: {terminated: {exitCode: 15}}").status();
    let event = transition(&[], &failing.conditions).unwrap();
    assert_eq!(
        (event.type_, event.reason.as_str()),
        (EventType::Warning, "DownloadUnauthorized")
    );
    assert!(transition(&failing.conditions, &failing.conditions).is_none());
    let object = object(HUB);
    let hash = hash_of(&object);
    let ready = World::new(object, vec![ready_pod("chat-1", &hash)]).status();
    let event = transition(&failing.conditions, &ready.conditions).unwrap();
    assert_eq!((event.type_, event.reason.as_str()), (EventType::Normal, "Ready"));
}

#[test]
fn the_next_check_is_sooner_where_something_can_change() {
    let seconds = |world: &World| next_check(&world.status()).as_secs();
    assert_eq!(seconds(&fetch_container("state: {running: {}}")), 10);
    assert_eq!(
        seconds(&fetch_container("state: {terminated: {exitCode: 15}}")),
        10
    );
    let object = object(HUB);
    let hash = hash_of(&object);
    assert_eq!(plan(&object).replicas, 1);
    assert_eq!(
        seconds(&World::new(object, vec![ready_pod("chat-1", &hash)])),
        300
    );
}

/// `Ready`, `Reconciling` and `Stalled` as kstatus reads them.
fn kstatus(status: &ModelDeploymentStatus) -> &'static str {
    let holds = |type_| condition(status, type_).status == "True";
    match (
        holds(ConditionType::Stalled),
        holds(ConditionType::Reconciling),
        holds(ConditionType::Ready),
    ) {
        (true, false, _) => "Failed",
        (false, true, false) => "InProgress",
        (false, false, true) => "Current",
        contradiction => panic!("{contradiction:?}"),
    }
}

#[test]
fn kstatus_can_tell_failed_from_waiting_and_zero_is_current() {
    let object_at_zero = object("{model: {huggingFace: {repo: acme/model}}, replicas: 0}");
    let mut zero = World::new(object_at_zero, Vec::new());
    zero.deployment_status = settled(0);
    let ready = object(HUB);
    let hash = hash_of(&ready);
    let refused =
        object("{model: {huggingFace: {repo: acme/model}}, env: [{name: MAX_NUM_SEQS, value: many}]}");
    for (world, expected) in [
        (zero, "Current"),
        (World::new(ready, vec![ready_pod("chat-1", &hash)]), "Current"),
        (fetch_container("state: {running: {}}"), "InProgress"),
        (fetch_container("state: {terminated: {exitCode: 15}}"), "Failed"),
        (World::new(refused, Vec::new()), "Failed"),
    ] {
        assert_eq!(kstatus(&world.status()), expected);
    }
}

fn refusal(code: u16, message: &str) -> ApiError {
    let status = kube::core::Status {
        code,
        message: message.into(),
        ..kube::core::Status::default()
    };
    ApiError::of("write ConfigMap chat-config".into())(kube::Error::Api(Box::new(status)))
}

fn failed(error: &ApiError) -> ModelDeploymentStatus {
    let object = object(HUB);
    let hash = hash_of(&object);
    let world = World::new(object, vec![ready_pod("chat-1", &hash)]);
    let plan = plan(&world.object);
    let outcome = Outcome::Failed {
        plan: &plan,
        template_hash: &hash,
        error,
    };
    compute(&world.object, &world.observed, outcome, at("10:05:00"))
}

#[test]
fn what_the_api_server_does_not_do_is_in_the_status_of_this_generation() {
    for (code, message, reason, phase, kind) in [
        (
            500,
            "failed calling webhook",
            "ApplyFailed",
            Phase::Updating,
            "InProgress",
        ),
        (
            403,
            "exceeded quota: small",
            "QuotaExceeded",
            Phase::Failed,
            "Failed",
        ),
        (
            422,
            "spec.x: Invalid value",
            "InvalidSetting",
            Phase::Failed,
            "Failed",
        ),
    ] {
        let status = failed(&refusal(code, message));
        assert_eq!(ready_reason(&status), format!("False/{reason}"));
        let accepted = condition(&status, ConditionType::Accepted);
        assert_eq!(
            (accepted.status.as_str(), accepted.reason.as_str()),
            ("False", reason)
        );
        assert_eq!(
            (status.phase, status.observed_generation, kstatus(&status)),
            (Some(phase), Some(3), kind)
        );
        assert_eq!(
            condition(&status, ConditionType::Available).status,
            "True",
            "its pod serves"
        );
        assert_eq!(status.updated_replicas, 1, "its pod is of this spec");
    }
}

#[test]
fn a_long_message_keeps_its_beginning_its_end_and_the_whole_remedy() {
    let long = format!("begin {} end", "x".repeat(5000));
    let status = failed(&refusal(422, &long));
    let message = &condition(&status, ConditionType::Ready).message;
    assert_eq!(message.chars().count(), 1024);
    assert!(
        message.starts_with("cannot write ConfigMap chat-config: begin x"),
        "{message}"
    );
    assert!(
        message.ends_with("x end. Remedy: change the field that the message names"),
        "{message}"
    );

    let scheduler = format!("0/900 nodes are available: {}", "y".repeat(5000));
    let pending = format!(
        "conditions: [{{type: PodScheduled, status: 'False', reason: Unschedulable, message: {}}}]",
        json!(scheduler)
    );
    let mut world = with_status(&pending);
    world.observed.pods[0].spec.as_mut().unwrap().node_name = None;
    let status = world.status();
    let message = &condition(&status, ConditionType::Ready).message;
    assert!(
        message.starts_with("0/900 nodes are available: y")
            && message.contains("Remedy: lower spec.resources")
    );
}

#[test]
fn a_rollout_without_room_waits_for_the_check_of_the_new_spec() {
    let object = object(HUB);
    let hash = hash_of(&object);
    let words = "0/1 nodes are available: 1 Insufficient memory.";
    let pending = format!(
        "conditions: [{{type: PodScheduled, status: 'False', reason: Unschedulable, message: {}}}]",
        json!(words)
    );
    let mut waiting = pod("chat-2", &hash, &pending);
    waiting.spec.as_mut().unwrap().node_name = None;
    let mut world = World::new(object, vec![ready_pod("chat-1", "of-before"), waiting]);
    world.pod_order = PodOrder::CheckFirst;
    let status = world.status();
    assert_eq!(ready_reason(&status), "False/RolloutBlockedNoRoom");
    assert!(condition(&status, ConditionType::Ready).message.contains(words));
    assert_eq!(
        (status.phase, kstatus(&status)),
        (Some(Phase::Updating), "InProgress")
    );

    let message =
        Failure::new(Reason::DownloadNotFound, "no such model", "correct it").to_termination_message();
    let exit = format!(
        "state: {{terminated: {{exitCode: 16, message: {}}}}}",
        json!(message)
    );
    let check = pod(
        "chat-check-1",
        "",
        &container_status("initContainerStatuses", "fetch", &exit),
    );
    world.observed.check_pods = vec![check];
    let status = world.status();
    assert_eq!(ready_reason(&status), "False/DownloadNotFound");
    assert_eq!(kstatus(&status), "Failed");
    assert_eq!(condition(&status, ConditionType::Available).status, "True");

    world.pod_order = PodOrder::OldFirst;
    world.observed.check_pods.clear();
    assert_eq!(
        ready_reason(&world.status()),
        "False/Scheduling",
        "the old pod makes room"
    );
}

#[test]
fn a_pod_that_was_ready_is_not_loading() {
    let unready = |is_ready: bool| {
        let object = object(HUB);
        let hash = hash_of(&object);
        let mut pod = ready_pod("chat-1", &hash);
        let status = pod.status.as_mut().unwrap();
        let ready = &mut status.conditions.as_mut().unwrap()[1];
        ready.status = "False".into();
        ready.last_transition_time = Some(Time(at("10:04:00")));
        status.container_statuses.as_mut().unwrap()[0].ready = is_ready;
        World::new(object, vec![pod]).status()
    };
    let stuck = unready(false);
    assert_eq!(ready_reason(&stuck), "False/ReplicaUnready");
    assert_eq!(
        condition(&stuck, ConditionType::EngineReady).reason,
        "ReplicaUnready"
    );
    let lost = unready(true);
    assert_eq!(ready_reason(&lost), "False/NodeLost");
    assert!(condition(&lost, ConditionType::Ready).message.contains("node-1"));
}

#[test]
fn fields_of_others_and_pods_of_others_are_named() {
    let object = object(HUB);
    let hash = hash_of(&object);
    let mut world = World::new(object, vec![ready_pod("chat-1", &hash)]);
    world.managed_fields = json!([{
        "manager": "kubectl-set", "operation": "Update",
        "fieldsV1": {"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"proxy\"}": {}}}}}},
    }]);
    world.observed.strays = vec!["debug".into()];
    let status = world.status();
    assert_eq!(ready_reason(&status), "False/Drifted");
    assert!(
        condition(&status, ConditionType::Ready)
            .message
            .contains("kubectl edit deployment chat")
    );
    let available = condition(&status, ConditionType::Available);
    assert!(
        available.status == "True" && available.message.ends_with("are no replicas: debug"),
        "{available:?}"
    );
}

#[test]
fn refusals_of_pods_name_what_to_change() {
    for (message, reason, remedy) in [
        (
            "pods \"p\" is forbidden: no PriorityClass with name gold was found",
            "InvalidSetting",
            "priorityClassName",
        ),
        (
            "pods \"p\" is forbidden: pod rejected: RuntimeClass \"gpu\" not found",
            "InvalidSetting",
            "runtimeClassName",
        ),
        (
            "pods \"p\" is forbidden: failed quota: q: must specify limits.cpu for: fetch,runtime",
            "PodsRefused",
            "spec.resources.limits.cpu",
        ),
        (
            "pods \"p\" is forbidden: exceeded quota: q",
            "PodsRefused",
            "raise the quota",
        ),
        (
            "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\"",
            "PodsRefused",
            "Pod Security",
        ),
        (
            "pods \"p\" is forbidden: maximum memory usage per Container is 512Mi",
            "PodsRefused",
            "LimitRange",
        ),
    ] {
        let mut world = World::new(object(HUB), Vec::new());
        world.deployment_status["conditions"] = json!([{
            "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message,
        }]);
        let status = world.status();
        assert_eq!(ready_reason(&status), format!("False/{reason}"), "{message}");
        let ready = condition(&status, ConditionType::Ready);
        assert!(ready.message.contains(remedy), "{}", ready.message);
    }
}

#[test]
fn a_process_names_variables_and_the_status_names_fields() {
    let exit = |spec: &str, message: &str, remedy: &str| {
        let object = object(spec);
        let message = Failure::new(Reason::InvalidSetting, message, remedy).to_termination_message();
        let exit = format!(
            "state: {{terminated: {{exitCode: 10, message: {}}}}}",
            json!(message)
        );
        let failing = container_status("containerStatuses", "runtime", &exit);
        let pod = pod("chat-1", &hash_of(&object), &failing);
        World::new(object, vec![pod]).status().last_failure.unwrap()
    };
    let failure = exit(
        HUB,
        "MAX_MODEL_LEN of 9 is too long for HOST",
        "Lower MAX_MODEL_LEN.",
    );
    assert_eq!(
        failure.message,
        "spec.engine.maxModelLen of 9 is too long for HOST"
    );
    assert_eq!(failure.remedy, "Lower spec.engine.maxModelLen.");
    assert_eq!(
        exit(HUB, "x", "Set MODEL_NAME.").remedy,
        "Set spec.model.huggingFace.repo."
    );
    let claim = "model: {pvc: {claimName: c, path: no/such/dir}}";
    assert_eq!(
        exit(claim, "x", "Set MODEL_NAME.").remedy,
        "Set spec.model.pvc.path."
    );
}

#[test]
fn notes_on_what_could_not_be_had_are_in_accepted() {
    let object = object(HUB);
    let hash = hash_of(&object);
    let mut world = World::new(object, vec![ready_pod("chat-1", &hash)]);
    world.notes = vec!["the claim chat-cache keeps its 1Gi".into()];
    let status = world.status();
    assert_eq!(ready_reason(&status), "True/Ready");
    assert_eq!(
        condition(&status, ConditionType::Accepted).message,
        "the claim chat-cache keeps its 1Gi"
    );
}

#[test]
fn a_change_by_the_autoscaler_is_in_the_history_and_an_event() {
    let object = object("{model: {huggingFace: {repo: a/b}}, autoscaling: {maxReplicas: 4}}");
    let hash = hash_of(&object);
    let mut world = World::new(object, vec![ready_pod("chat-1", &hash)]);
    let autoscaled = |replicas, activity| Autoscaled {
        decision: Decision {
            replicas,
            cause: Cause::Arrivals,
            trace: "2.00 requests/s".into(),
        },
        activity,
        key_hashes: Vec::new(),
    };
    world.observed.autoscaled = Some(autoscaled(1, Activity::NoAnswer));
    let first = world.status();
    assert_eq!(first.autoscaling, Some(AutoscalingStatus::default()));
    let active = |status: &ModelDeploymentStatus| {
        let mut conditions = status.conditions.iter();
        let found = conditions
            .find(|condition| condition.type_ == "AutoscalingActive")
            .unwrap();
        (found.status.clone(), found.reason.clone())
    };
    assert_eq!(active(&first), ("False".into(), "NoAnswer".into()));

    for replicas in [2, 3, 4, 3, 2, 1] {
        world.object.status = Some(world.status());
        world.observed.autoscaled = Some(autoscaled(replicas, Activity::Active));
        let status = world.status();
        assert_eq!(status.desired_replicas, replicas);
        let scaling = new_scaling(world.object.status.as_ref(), &status).unwrap();
        assert_eq!((scaling.to, scaling.reason.as_str()), (replicas, "Arrivals"));
        assert!(status.autoscaling.unwrap().history.len() <= HISTORY_MAX);
    }
    world.object.status = Some(world.status());
    let settled = world.status();
    assert_eq!(new_scaling(world.object.status.as_ref(), &settled), None);
    assert_eq!(active(&settled), ("True".into(), "LoadRead".into()));
}

#[test]
fn at_zero_by_itself_the_status_says_what_starts_a_replica_and_keeps_the_keys_that_may() {
    let object = object(
        "{model: {huggingFace: {repo: a/b}}, autoscaling: {minReplicas: 0, maxReplicas: 4}, \
         auth: {apiKeysSecretRef: {name: keys}}}",
    );
    let hash = hash_of(&object);
    let mut world = World::new(object, vec![ready_pod("chat-1", &hash)]);
    let autoscaled = |replicas, activity, key_hashes: &[&str]| {
        Some(Autoscaled {
            decision: Decision {
                replicas,
                cause: Cause::Idle,
                trace: "no request for 900 s".into(),
            },
            activity,
            key_hashes: key_hashes.iter().map(ToString::to_string).collect(),
        })
    };
    world.observed.autoscaled = autoscaled(1, Activity::Active, &["h"]);
    let serving = world.status();
    let reported = serving.wake_keys.clone().unwrap();
    assert_eq!(
        (reported.secret.as_str(), reported.key.as_str(), reported.hashes),
        ("keys", "OPENAI_API_KEYS", vec!["h".to_owned()])
    );

    world.object.status = Some(serving);
    world.observed.pods.clear();
    world.deployment_status = settled(0);
    world.observed.autoscaled = autoscaled(0, Activity::AtZero, &[]);
    let status = world.status();
    assert_eq!(
        line(&status),
        "Accepted+Accepted ModelReady-ScaledToZero Scheduled-ScaledToZero EngineReady-ScaledToZero \
         Available-ScaledToZero Progressing-Stable AutoscalingActive+WaitingForRequests Ready+ScaledToZero"
    );
    let ready = condition(&status, ConditionType::Ready);
    assert!(
        ready.message.ends_with("a request at the gateway starts one"),
        "{}",
        ready.message
    );
    assert_eq!(
        (status.phase, status.summary.as_deref()),
        (Some(Phase::ScaledToZero), Some("0/0"))
    );
    assert_eq!(status.wake_keys.as_ref().unwrap().hashes, ["h"]);
    let scaling = new_scaling(world.object.status.as_ref(), &status).unwrap();
    assert_eq!(
        (scaling.from, scaling.to, scaling.reason.as_str()),
        (1, 0, "Idle")
    );

    world.observed.autoscaled = autoscaled(0, Activity::NoGateway, &[]);
    let deaf = world.status();
    assert_eq!(
        condition(&deaf, ConditionType::AutoscalingActive).reason,
        "NoAnswer"
    );
    world
        .object
        .spec
        .auth
        .as_mut()
        .unwrap()
        .api_keys_secret_ref
        .as_mut()
        .unwrap()
        .name = "other".into();
    assert_eq!(world.status().wake_keys, None, "keys of another Secret");
}
