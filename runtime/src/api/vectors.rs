//! What is made of vectors in answers: unit length, and the cosine of two.
//!
//! Must not know how vectors are computed.

/// The vector of the same direction and length 1; a zero vector stays as it is.
pub fn normalised(vector: Vec<f32>) -> Vec<f32> {
    let length = dot(&vector, &vector).sqrt();
    if length == 0.0 {
        return vector;
    }
    let scaled = vector.into_iter().map(|x| (f64::from(x) / length) as f32);
    scaled.collect()
}

/// The cosine of the angle between two vectors of one length; 0 if either is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths == 0.0 {
        return 0.0;
    }
    (dot(a, b) / lengths) as f32
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_have_length_1_and_an_angle() {
        assert_eq!(normalised(vec![3.0, -4.0]), [0.6, -0.8]);
        assert_eq!(normalised(vec![0.0, 0.0]), [0.0, 0.0]);
        assert_eq!(cosine(&[2.0, 0.0], &[5.0, 0.0]), 1.0);
        assert_eq!(cosine(&[2.0, 0.0], &[0.0, 1.0]), 0.0);
        assert_eq!(cosine(&[1.0, 1.0], &[-3.0, -3.0]), -1.0);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
        // Squares that overflow an f32.
        assert_eq!(normalised(vec![1e30, 0.0]), [1.0, 0.0]);
    }
}
