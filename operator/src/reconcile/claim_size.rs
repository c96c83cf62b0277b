//! The size of a claim is a wish: a volume can grow and never shrinks, and a retained one may be larger.
//!
//! Pure. Compares quantities of storage.

use k8s_openapi::{api::core::v1::PersistentVolumeClaim, apimachinery::pkg::api::resource::Quantity};

const STORAGE: &str = "storage";

/// Keeps the size of the live claim if it is larger than the built one, and says so.
pub fn keep(built: &mut PersistentVolumeClaim, live: &PersistentVolumeClaim) -> Option<String> {
    let kept = size(live)?.clone();
    let wished = size(built)?.clone();
    if bytes(&kept)? <= bytes(&wished)? {
        return None;
    }
    let name = live.metadata.name.clone().unwrap_or_default();
    let requests = built.spec.as_mut()?.resources.as_mut()?.requests.as_mut()?;
    requests.insert(STORAGE.into(), kept.clone());
    Some(format!(
        "the claim {name} keeps its {}, more than the {} of spec.cache.size: a claim cannot shrink",
        kept.0, wished.0
    ))
}

fn size(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    claim
        .spec
        .as_ref()?
        .resources
        .as_ref()?
        .requests
        .as_ref()?
        .get(STORAGE)
}

/// The number of bytes of a quantity such as `1.5Gi`, `100M` or `2e9`; `None` if it is not one.
fn bytes(quantity: &Quantity) -> Option<f64> {
    const UNITS: [(&str, f64); 14] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
        ("", 1.0),
    ];
    UNITS.iter().find_map(|(unit, factor)| {
        let number: f64 = quantity.0.strip_suffix(unit)?.parse().ok()?;
        Some(number * factor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim(size: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": {"name": "chat-cache"},
            "spec": {"resources": {"requests": {"storage": size}}},
        }))
        .unwrap()
    }

    #[test]
    fn quantities_are_read_in_every_unit() {
        for (text, expected) in [
            ("64Mi", 67_108_864.0),
            ("1.5Gi", 1_610_612_736.0),
            ("100M", 1e8),
            ("2e9", 2e9),
            ("12E", 1.2e19),
            ("1000", 1000.0),
            ("500m", 0.5),
        ] {
            assert_eq!(bytes(&Quantity(text.into())), Some(expected), "{text}");
        }
        assert_eq!(bytes(&Quantity("many".into())), None);
    }

    #[test]
    fn a_claim_grows_and_never_shrinks() {
        for (wished, live, result, is_noted) in [
            ("128Mi", "64Mi", "128Mi", false),
            ("1Gi", "1024Mi", "1Gi", false),
            ("64Mi", "128Mi", "128Mi", true),
            ("1G", "1Gi", "1Gi", true),
        ] {
            let mut built = claim(wished);
            let note = keep(&mut built, &claim(live));
            assert_eq!(
                size(&built),
                Some(&Quantity(result.into())),
                "{wished} over {live}"
            );
            assert_eq!(note.is_some(), is_noted, "{wished} over {live}");
        }
    }
}
