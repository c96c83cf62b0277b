//! Error bounds of the formats, and what happens to zeros, outliers and numbers that are not finite.

use half::bf16;
use proptest::prelude::*;

use super::*;

const FORMATS: [QuantFormat; 3] = [QuantFormat::Int8, QuantFormat::Fp8, QuantFormat::Nf4];

/// The largest error that [`QuantFormat::quantise`] documents, with room for the roundings of f32.
fn bound(format: QuantFormat, number: f32, scale: f32) -> f64 {
    let (number, scale) = (f64::from(number.abs()), f64::from(scale));
    let documented = match format {
        QuantFormat::Int8 => scale / 2.0,
        QuantFormat::Fp8 => (number / 16.0).max(scale / 1024.0),
        QuantFormat::Nf4 => 0.153 * scale,
    };
    documented * (1.0 + 1e-5) + f64::from(f32::MIN_POSITIVE) * 448.0
}

fn check(format: QuantFormat, numbers: &[f32]) {
    let mut codes = vec![0; numbers.len()];
    let scale = format.quantise(numbers, &mut codes).unwrap();
    assert!(scale.is_finite() && scale >= 0.0);
    for (&number, &code) in numbers.iter().zip(&codes) {
        let stays = f64::from(format.value(code)) * f64::from(scale);
        let error = (stays - f64::from(number)).abs();
        let bound = bound(format, number, scale);
        assert!(
            error <= bound,
            "{format:?}: {number} becomes {stays} at scale {scale}"
        );
    }
}

#[test]
fn the_value_of_every_code_fits_bf16_and_is_its_own_code() {
    for format in FORMATS {
        let n_codes = 1_u32 << format.bits();
        for code in (0..n_codes).map(|code| code as u8) {
            let value = format.value(code);
            if format == QuantFormat::Fp8 && code & 0x7f == 0x7f {
                assert!(value.is_nan());
                continue;
            }
            assert_eq!(bf16::from_f32(value).to_f32(), value, "{format:?} {code}");
            let has_code = match format {
                QuantFormat::Int8 | QuantFormat::Fp8 => code != 0x80,
                QuantFormat::Nf4 => true,
            };
            if has_code {
                // The largest value makes the scale 1.
                let mut codes = [0; 2];
                let scale = format.quantise(&[value, format.value_max()], &mut codes).unwrap();
                assert_eq!((scale, codes[0]), (1.0, code), "{format:?}");
            }
        }
    }
}

#[test]
fn codes_are_the_nearest() {
    for format in FORMATS {
        let values: Vec<f32> = (0..1_u32 << format.bits())
            .map(|code| format.value(code as u8))
            .filter(|value| value.abs() <= format.value_max())
            .collect();
        for i in 0..4000 {
            let number = (i as f32 / 2000.0 - 1.0) * format.value_max();
            let mut codes = [0; 2];
            format
                .quantise(&[number, format.value_max()], &mut codes)
                .unwrap();
            let error = (format.value(codes[0]) - number).abs();
            let least = values
                .iter()
                .map(|value| (value - number).abs())
                .fold(f32::MAX, f32::min);
            assert!(
                error <= least,
                "{format:?}: {number} becomes {}",
                format.value(codes[0])
            );
        }
    }
}

#[test]
fn integers_round_ties_to_even() {
    let mut codes = [0; 5];
    let numbers = [0.5, 1.5, -2.5, -0.5, 127.0];
    QuantFormat::Int8.quantise(&numbers, &mut codes).unwrap();
    assert_eq!(codes.map(|code| code as i8), [0, 2, -2, 0, 127]);
}

#[test]
fn zeros_stay_zeros() {
    for format in FORMATS {
        let mut codes = [1; 3];
        assert_eq!(format.quantise(&[0.0, -0.0, 0.0], &mut codes), Ok(0.0));
        assert!(codes.iter().all(|code| format.value(*code) == 0.0));
        let mut row = [0.0, 3.0, 0.0, -1.0];
        format.round(&mut row, 4).unwrap();
        assert_eq!((row[0], row[2]), (0.0, 0.0), "{format:?}");
    }
}

#[test]
fn numbers_at_the_ends_of_f32_are_kept_or_become_zero() {
    for format in FORMATS {
        check(format, &[f32::MAX, -f32::MAX, 1.0, 0.0]);
        check(format, &[f32::MIN_POSITIVE, -1e-45, 0.0]);
        check(format, &[1e-30, -1e-37]);
    }
}

#[test]
fn an_outlier_costs_its_own_group_only() {
    for format in FORMATS {
        let mut row: Vec<f32> = (0..128).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut alone = row.clone();
        format.round(&mut alone, 64).unwrap();
        row[5] = 1000.0;
        format.round(&mut row, 64).unwrap();
        assert!((row[5] - 1000.0).abs() < 1e-3, "{format:?}: {}", row[5]);
        assert_eq!(row[64..], alone[64..], "{format:?}");
    }
}

#[test]
fn what_is_not_finite_is_named() {
    for format in FORMATS {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = [1.0; 10];
            row[7] = bad;
            assert_eq!(
                format.round(&mut row, 4),
                Err(NotFinite { index: 7 }),
                "{format:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn errors_stay_below_the_documented_bounds(
        numbers in prop::collection::vec(-2.0_f32..2.0, 1..130),
        exponent in -30_i32..30,
        which in 0_usize..3,
    ) {
        let scaled: Vec<f32> = numbers.iter().map(|w| w * 2_f32.powi(exponent)).collect();
        check(FORMATS[which], &scaled);
    }

    #[test]
    fn what_was_quantised_stays_as_it_is(
        numbers in prop::collection::vec(-2.0_f32..2.0, 1..130),
        which in 0_usize..3,
    ) {
        let format = FORMATS[which];
        let mut once = numbers;
        format.round(&mut once, 64).unwrap();
        let mut twice = once.clone();
        format.round(&mut twice, 64).unwrap();
        for (once, twice) in once.iter().zip(&twice) {
            prop_assert!((once - twice).abs() <= once.abs() * 4.0 * f32::EPSILON, "{once} {twice}");
        }
    }
}
