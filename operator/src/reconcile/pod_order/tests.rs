//! Tests of the order, in a small model of the Deployment controller: whatever is wrong with a new spec, a pod serves.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    super::{
        children::Resources,
        fixtures::{at, object, plan, pod, ready_pod},
        plan::Plan,
    },
    *,
};
use crate::names::{OWNER_LABEL, TEMPLATE_HASH};

fn order(observed: &Observed, now: Timestamp) -> PodOrder {
    pod_order(&Names::of("chat"), NEW, observed, now)
}

const OLD: &str = "old";
const NEW: &str = "new";
const TICK: SignedDuration = SignedDuration::from_secs(5);

/// One replica of a Deployment in a rollout, and the cluster around it.
struct World {
    /// Whether a new pod finds a node while the old one exists.
    room: bool,
    /// Whether a pod of the new spec becomes ready, and a check of it succeeds.
    is_good: bool,
    order: PodOrder,
    old: bool,
    new: NewPod,
    /// Ticks since the Job was made.
    job_ticks: Option<u32>,
    now: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NewPod {
    Absent,
    Unscheduled(Timestamp),
    Starting,
    Ready,
}

impl World {
    fn new(room: bool, is_good: bool) -> Self {
        Self {
            room,
            is_good,
            order: PodOrder::NewFirst,
            old: true,
            new: NewPod::Absent,
            job_ticks: None,
            now: at("10:05:00"),
        }
    }

    fn surge_and_unavailable(&self) -> (i32, i32) {
        match self.order {
            PodOrder::NewFirst | PodOrder::CheckFirst => (1, 0),
            PodOrder::OldFirst => (0, 1),
        }
    }

    fn observed(&self) -> Observed {
        let (surge, unavailable) = self.surge_and_unavailable();
        let mut live = vec![(
            "Deployment",
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "chat"},
                "spec": {
                    "selector": {},
                    "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
                    "template": {"metadata": {"annotations": {TEMPLATE_HASH: NEW}}},
                },
            }),
        )];
        if let Some(ticks) = self.job_ticks {
            let succeeded = u32::from(ticks > 2 && self.is_good);
            live.push(("Job", job(NEW, succeeded)));
        }
        let mut pods = Vec::new();
        if self.old {
            pods.push(ready_pod("chat-old", OLD));
        }
        pods.extend(match self.new {
            NewPod::Absent => None,
            NewPod::Unscheduled(since) => Some(unscheduled(NO_MEMORY, since)),
            NewPod::Starting => Some(pod("chat-new", NEW, "{phase: Pending}")),
            NewPod::Ready => Some(ready_pod("chat-new", NEW)),
        });
        Observed {
            live: live
                .into_iter()
                .map(|(kind, value)| (kind, typed(value)))
                .collect(),
            pods,
            ..Observed::default()
        }
    }

    /// The operator, then the Job and Deployment controllers, then the scheduler and the kubelet.
    fn tick(&mut self) {
        self.now += TICK;
        self.order = order(&self.observed(), self.now);
        let (surge, unavailable) = self.surge_and_unavailable();
        self.job_ticks = match self.order {
            PodOrder::CheckFirst => Some(self.job_ticks.unwrap_or(0) + 1),
            PodOrder::NewFirst | PodOrder::OldFirst => None,
        };
        let n_ready = i32::from(self.old) + i32::from(self.new == NewPod::Ready);
        if self.old && n_ready > 1 - unavailable {
            self.old = false;
        }
        let n_pods = i32::from(self.old) + i32::from(self.new != NewPod::Absent);
        self.new = match self.new {
            NewPod::Absent if n_pods < 1 + surge => NewPod::Unscheduled(self.now),
            NewPod::Unscheduled(_) if self.room || !self.old => NewPod::Starting,
            NewPod::Starting if self.is_good => NewPod::Ready,
            same => same,
        };
    }
}

fn typed(value: Value) -> Arc<kube::api::DynamicObject> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn job(hash: &str, succeeded: u32) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "chat-check", "annotations": {TEMPLATE_HASH: hash}},
        "status": {"succeeded": succeeded},
    })
}

const NO_MEMORY: &str = "0/1 nodes are available: 1 Insufficient memory.";

fn unscheduled(message: &str, since: Timestamp) -> k8s_openapi::api::core::v1::Pod {
    let condition = format!(
        "conditions: [{{type: PodScheduled, status: 'False', reason: Unschedulable, message: '{message}', lastTransitionTime: '{since}'}}]"
    );
    let mut pod = pod("chat-new", NEW, &condition);
    pod.spec.as_mut().unwrap().node_name = None;
    pod
}

/// Kinds of models, and whether a node usually has room for two of their pods.
const KINDS: [(&str, bool); 4] = [
    ("replicas: 1", true),
    ("cache: {type: PVC}", true),
    ("cache: {type: PVC, accessMode: ReadWriteMany}", true),
    ("resources: {gpu: {count: 1}}", false),
];

#[test]
fn a_bad_repository_setting_or_image_never_takes_the_last_good_pod() {
    for (kind, has_room) in KINDS {
        for room in [has_room, false] {
            let mut world = World::new(room, false);
            for _ in 0..1000 {
                world.tick();
                assert!(world.old, "{kind}, room: {room}");
            }
            let expected = match room {
                true => PodOrder::NewFirst,
                false => PodOrder::CheckFirst,
            };
            assert_eq!(world.order, expected, "{kind}, room: {room}");
        }
    }
}

#[test]
fn a_good_change_rolls_out_with_and_without_room() {
    for room in [true, false] {
        let mut world = World::new(room, true);
        let mut unavailable_ticks = 0;
        for _ in 0..30 {
            world.tick();
            unavailable_ticks += u32::from(!world.old && world.new != NewPod::Ready);
        }
        assert_eq!((world.old, world.new), (false, NewPod::Ready), "room: {room}");
        assert_eq!(world.order, PodOrder::NewFirst, "the next change begins anew");
        assert_eq!(unavailable_ticks > 0, !room);
    }
}

#[test]
fn every_kind_surges_at_first_and_keeps_one_template() {
    for (kind, _) in KINDS {
        let object = object(&format!("{{model: {{huggingFace: {{repo: a/b}}}}, {kind}}}"));
        let mut plan = plan(&object);
        let template = |plan: &Plan| json!(Resources::build(plan).deployment.spec.unwrap().template);
        let first = template(&plan);
        for order in [PodOrder::NewFirst, PodOrder::CheckFirst, PodOrder::OldFirst] {
            plan.pod_order = order;
            assert_eq!(template(&plan), first, "the order is no part of the template");
            assert_eq!(
                Resources::build(&plan).check.is_some(),
                order == PodOrder::CheckFirst
            );
        }
    }
}

#[test]
fn pods_that_do_not_serve_are_not_waited_for_and_quotas_are_room_too() {
    let mut world = World::new(false, false);
    world.new = NewPod::Unscheduled(at("10:04:00"));
    let mut observed = world.observed();
    observed.pods[0] = pod("chat-old", OLD, "{phase: Pending}");
    assert_eq!(order(&observed, world.now), PodOrder::OldFirst);

    world.new = NewPod::Absent;
    let mut observed = world.observed();
    let mut deployment = json!(observed.live.typed::<Deployment>("chat").unwrap());
    deployment["status"]["conditions"] = json!([{
        "type": "ReplicaFailure", "status": "True", "message": "pods \"p\" is forbidden: exceeded quota: small",
        "lastTransitionTime": "2026-11-21T10:04:00Z",
    }]);
    observed.live = [("Deployment", typed(deployment))].into_iter().collect();
    assert_eq!(order(&observed, world.now), PodOrder::CheckFirst);
}

#[test]
fn a_pod_that_fits_no_node_at_all_has_no_lack_of_room() {
    let world = World::new(false, true);
    for (message, expected) in [
        (NO_MEMORY, PodOrder::CheckFirst),
        (
            "0/9 nodes are available: 9 Insufficient nvidia.com/gpu.",
            PodOrder::CheckFirst,
        ),
        (
            "0/1 nodes are available: 1 node(s) didn\"t match pod affinity rules.",
            PodOrder::CheckFirst,
        ),
        (
            "0/1 nodes are available: 1 node(s) did not match Pod selector.",
            PodOrder::NewFirst,
        ),
    ] {
        let mut observed = world.observed();
        observed.pods.push(unscheduled(message, at("10:04:00")));
        assert_eq!(order(&observed, world.now), expected, "{message}");
    }
}

#[test]
fn a_check_of_another_spec_says_nothing() {
    let mut world = World::new(false, true);
    world.new = NewPod::Unscheduled(at("10:04:00"));
    let mut observed = world.observed();
    let deployment = json!(observed.live.typed::<Deployment>("chat").unwrap());
    let live = [("Deployment", deployment), ("Job", job("of-another-spec", 1))];
    observed.live = live
        .into_iter()
        .map(|(kind, value)| (kind, typed(value)))
        .collect();
    assert_eq!(
        order(&observed, world.now),
        PodOrder::NewFirst,
        "the Job is deleted first"
    );
}

#[test]
fn a_check_needs_no_gpu_and_gets_no_requests() {
    let object = object(
        "{model: {huggingFace: {repo: a/b}}, resources: {gpu: {count: 1, product: H200}, memory: 90Gi}}",
    );
    let mut plan = plan(&object);
    plan.pod_order = PodOrder::CheckFirst;
    let children = Resources::build(&plan);
    let policy = children.check_network_policy.unwrap().spec.unwrap();
    let job = children.check.unwrap();
    let template = job.spec.unwrap().template;
    let labels = template.metadata.unwrap().labels.unwrap();
    assert!(
        !labels.contains_key(OWNER_LABEL),
        "the Service must not select it"
    );
    assert_eq!(policy.pod_selector.unwrap().match_labels.unwrap(), labels);
    assert_eq!(policy.ingress, None, "nobody reaches it");
    assert!(policy.egress.is_some(), "it downloads");
    let pod = template.spec.unwrap();
    let text = json!(pod).to_string();
    assert!(!text.contains("nvidia.com") && !text.contains("90Gi"), "{text}");
    assert_eq!(pod.containers[0].args.as_ref().unwrap()[0], "inspect");
    assert_eq!(pod.init_containers.unwrap()[0].name, "fetch");
}
