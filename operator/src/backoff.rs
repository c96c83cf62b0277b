//! How long to wait before the reconcile of an object is retried: capped exponential, for each object and kind of error.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use kube::runtime::reflector::ObjectRef;

use crds::ModelDeployment;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// Objects whose failures are counted. Beyond this number all counts are reset, which only shortens waits.
const ENTRIES_MAX: usize = 10_000;

#[derive(Debug)]
struct Streak {
    kind: &'static str,
    failures: u32,
}

/// Consecutive failures of each object.
#[derive(Debug, Default)]
pub struct Backoffs {
    streaks: Mutex<HashMap<ObjectRef<ModelDeployment>, Streak>>,
}

impl Backoffs {
    /// Counts a failure of `kind` and returns how long to wait.
    pub fn after_failure(&self, object: ObjectRef<ModelDeployment>, kind: &'static str) -> Duration {
        let mut streaks = self.streaks.lock().expect("no holder panics");
        if streaks.len() >= ENTRIES_MAX && !streaks.contains_key(&object) {
            streaks.clear();
        }
        let streak = streaks.entry(object).or_insert(Streak { kind, failures: 0 });
        if streak.kind != kind {
            *streak = Streak { kind, failures: 0 };
        }
        let wait = FIRST
            .saturating_mul(2_u32.saturating_pow(streak.failures))
            .min(LONGEST);
        streak.failures = streak.failures.saturating_add(1);
        wait
    }

    /// Resets the count of an object that succeeded or was deleted.
    pub fn forget(&self, object: &ObjectRef<ModelDeployment>) {
        self.streaks.lock().expect("no holder panics").remove(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_cap_per_object_and_kind() {
        let backoffs = Backoffs::default();
        let chat = || ObjectRef::new("chat").within("a");
        let waits: Vec<u64> = (0..8)
            .map(|_| backoffs.after_failure(chat(), "apply").as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(
            backoffs
                .after_failure(ObjectRef::new("other").within("a"), "apply")
                .as_secs(),
            1
        );
        assert_eq!(backoffs.after_failure(chat(), "status").as_secs(), 1);
        backoffs.forget(&chat());
        assert_eq!(backoffs.after_failure(chat(), "status").as_secs(), 1);
    }
}
