//! Python's operators.

use num_bigint::{BigInt, Sign};

use super::display::write;
use super::error::{Result, failed};
use super::formatting::{escaped, printf};
use super::meter::{Meter, Output};
use super::number::{Number, integer};
use super::syntax::Operator;
use super::value::{Text, Value};

/// Bits of the result of a power, at most.
const POWER_BITS_MAX: u64 = 1 << 20;
/// Bits of the quotient of two integers before it is rounded.
const QUOTIENT_BITS: i64 = 70;

/// `a operator b`.
pub(super) fn binary(operator: Operator, a: &Value, b: &Value, meter: &Meter) -> Result<Value> {
    // A text formats an undefined value as nothing.
    let b = match (operator, a) {
        (Operator::Mod, Value::Text(_)) => b,
        _ => b.defined()?,
    };
    match (operator, a.defined()?, b) {
        (Operator::Add, Value::Text(a), Value::Text(b)) => joined(a, b, meter),
        (Operator::Add, Value::List(a), Value::List(b)) => {
            Value::list([&*a.values, &*b.values].concat(), meter)
        }
        (Operator::Add, Value::Tuple(a), Value::Tuple(b)) => {
            Value::tuple([&*a.values, &*b.values].concat(), meter)
        }
        (Operator::Mod, Value::Text(format), b) => {
            let text = printf(format.as_str(), b, meter)?;
            Ok(with_mark(text, format.is_markup))
        }
        (
            Operator::Mul,
            Value::Text(_) | Value::List(_) | Value::Tuple(_),
            Value::Int(_) | Value::Bool(_),
        ) => repeated(a, b, meter),
        (
            Operator::Mul,
            Value::Int(_) | Value::Bool(_),
            Value::Text(_) | Value::List(_) | Value::Tuple(_),
        ) => repeated(b, a, meter),
        (_, a, b) => match (Number::of(a), Number::of(b)) {
            (Some(a), Some(b)) => arithmetic(operator, a, b, meter),
            _ => Err(unsupported(operator, a, b)),
        },
    }
}

fn unsupported(operator: Operator, a: &Value, b: &Value) -> super::error::Error {
    failed(format!(
        "unsupported operand type(s) for {}: '{}' and '{}'",
        operator.symbol(),
        a.type_name(),
        b.type_name()
    ))
}

/// A text that is markup if `is_markup`.
pub(super) fn with_mark(value: Value, is_markup: bool) -> Value {
    match value {
        Value::Text(text) => Value::Text(text.marked(is_markup)),
        other => other,
    }
}

fn joined(a: &Text, b: &Text, meter: &Meter) -> Result<Value> {
    let mut out = Output::new(meter)?;
    let is_markup = a.is_markup || b.is_markup;
    for text in [a, b] {
        if is_markup && !text.is_markup {
            escaped(text.as_str(), &mut out)?;
        } else {
            out.push(text.as_str())?;
        }
    }
    Ok(with_mark(Value::written(out)?, is_markup))
}

fn repeated(value: &Value, times: &Value, meter: &Meter) -> Result<Value> {
    let n = match times {
        Value::Int(n) => usize::try_from(*n).unwrap_or(0),
        other => usize::from(other.is_true()),
    };
    let list = |values: &[Value]| -> Result<Vec<Value>> {
        let n_bytes = size_of_val(values).saturating_mul(n);
        let _charge = meter.charge(n_bytes)?;
        Ok(std::iter::repeat_n(values, n).flatten().cloned().collect())
    };
    match value {
        Value::Text(text) => {
            let mut out = Output::new(meter)?;
            if !text.as_str().is_empty() {
                out.repeat(text.as_str(), n)?;
            }
            Ok(with_mark(Value::written(out)?, text.is_markup))
        }
        Value::List(items) => Value::list(list(&items.values)?, meter),
        Value::Tuple(items) => Value::tuple(list(&items.values)?, meter),
        other => Ok(other.clone()),
    }
}

fn arithmetic(operator: Operator, a: Number, b: Number, meter: &Meter) -> Result<Value> {
    if let (Number::Int(a), Number::Int(b)) = (&a, &b)
        && let Some(value) = small(operator, *a, *b)
    {
        return Ok(Value::Int(value));
    }
    match (a.big(), b.big()) {
        (Some(a), Some(b)) if operator == Operator::Div => ratio(&a, &b).map(Value::Float),
        (Some(a), Some(b)) => big(operator, &a, &b, meter),
        _ => float(operator, &a, &b),
    }
}

/// The operations whose operands and result are an `i64`.
fn small(operator: Operator, a: i64, b: i64) -> Option<i64> {
    match operator {
        Operator::Add => a.checked_add(b),
        Operator::Sub => a.checked_sub(b),
        Operator::Mul => a.checked_mul(b),
        Operator::FloorDiv | Operator::Mod if b == 0 => None,
        Operator::FloorDiv => {
            let quotient = a.checked_div(b)?;
            Some(quotient - i64::from(a % b != 0 && (a < 0) != (b < 0)))
        }
        Operator::Mod => {
            let rest = a.checked_rem(b)?;
            Some(if rest != 0 && (rest < 0) != (b < 0) {
                rest + b
            } else {
                rest
            })
        }
        Operator::Div | Operator::Pow => None,
    }
}

fn big(operator: Operator, a: &BigInt, b: &BigInt, meter: &Meter) -> Result<Value> {
    let limbs = |n: &BigInt| n.bits() / 64 + 1;
    meter.steps(limbs(a).saturating_mul(limbs(b)))?;
    let zero = BigInt::ZERO;
    match operator {
        Operator::Add => integer(a + b),
        Operator::Sub => integer(a - b),
        Operator::Mul => integer(a * b),
        Operator::FloorDiv | Operator::Mod if *b == zero => Err(failed("integer division or modulo by zero")),
        Operator::FloorDiv | Operator::Mod => {
            let (mut quotient, mut rest) = (a / b, a % b);
            if rest != zero && (rest.sign() == Sign::Minus) != (b.sign() == Sign::Minus) {
                quotient -= 1;
                rest += b;
            }
            integer(if operator == Operator::Mod { rest } else { quotient })
        }
        Operator::Div | Operator::Pow if b.sign() == Sign::Minus => {
            float(operator, &Number::Big(a.clone()), &Number::Big(b.clone()))
        }
        Operator::Div | Operator::Pow => {
            let exponent = u32::try_from(b).ok();
            let exponent = exponent.filter(|n| a.bits().saturating_mul(u64::from(*n)) <= POWER_BITS_MAX);
            // Powers of 0 and 1 are small, whatever the exponent.
            let exponent = exponent.or_else(|| (a.bits() <= 1).then(|| u32::from(b.bit(0)) + 2));
            let exponent =
                exponent.ok_or_else(|| failed(format!("a power has more than {POWER_BITS_MAX} bits")))?;
            let n_limbs = a.bits().saturating_mul(u64::from(exponent)) / 64 + 1;
            meter.steps(n_limbs.saturating_pow(2))?;
            integer(a.pow(exponent))
        }
    }
}

/// `a / b` for integers, rounded once.
fn ratio(a: &BigInt, b: &BigInt) -> Result<f64> {
    if *b == BigInt::ZERO {
        return Err(failed("division by zero"));
    }
    let is_negative = (a.sign() == Sign::Minus) != (b.sign() == Sign::Minus);
    let (a, b) = (a.magnitude(), b.magnitude());
    // The quotient gets more bits than a float has, and its last bit stands for the rest.
    let shift = QUOTIENT_BITS + b.bits() as i64 - a.bits() as i64;
    let (dividend, divisor) = match shift >= 0 {
        true => (a << shift, b.clone()),
        false => (a.clone(), b << -shift),
    };
    let has_rest = &dividend % &divisor != BigInt::ZERO.magnitude().clone();
    let quotient = u128::try_from(dividend / divisor).unwrap_or(u128::MAX) | u128::from(has_rest);
    let halves = (-shift / 2) as i32;
    let value = quotient as f64 * 2f64.powi(halves) * 2f64.powi((-shift) as i32 - halves);
    if value.is_infinite() {
        return Err(failed("integer division result too large for a float"));
    }
    Ok(if is_negative { -value } else { value })
}

fn float(operator: Operator, a: &Number, b: &Number) -> Result<Value> {
    let (a, b) = (a.float()?, b.float()?);
    let value = match operator {
        Operator::Add => a + b,
        Operator::Sub => a - b,
        Operator::Mul => a * b,
        Operator::Div if b == 0.0 => return Err(failed("division by zero")),
        Operator::FloorDiv | Operator::Mod if b == 0.0 => {
            return Err(failed("float floor division or modulo by zero"));
        }
        Operator::Div => a / b,
        Operator::FloorDiv => {
            let rest = modulo(a, b);
            let quotient = (a - rest) / b;
            if quotient == 0.0 {
                0f64.copysign(a / b)
            } else {
                quotient.round()
            }
        }
        Operator::Mod => modulo(a, b),
        Operator::Pow => {
            if a == 0.0 && b < 0.0 {
                return Err(failed("0.0 cannot be raised to a negative power"));
            }
            let power = a.powf(b);
            if power.is_nan() && !a.is_nan() && !b.is_nan() {
                return Err(failed("complex numbers are not supported"));
            }
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return Err(failed("Numerical result out of range"));
            }
            power
        }
    };
    Ok(Value::Float(value))
}

/// Python's `a % b` for floats: it has the sign of `b`.
fn modulo(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest == 0.0 {
        0f64.copysign(b)
    } else if (rest < 0.0) != (b < 0.0) {
        rest + b
    } else {
        rest
    }
}

/// `-value`.
pub(super) fn negative(value: &Value) -> Result<Value> {
    match Number::of(value.defined()?) {
        Some(Number::Float(number)) => Ok(Value::Float(-number)),
        Some(number) => integer(-number.big().unwrap_or_default()),
        None => Err(failed(format!(
            "bad operand type for unary -: '{}'",
            value.type_name()
        ))),
    }
}

/// `+value`.
pub(super) fn positive(value: &Value) -> Result<Value> {
    match Number::of(value.defined()?) {
        Some(Number::Float(number)) => Ok(Value::Float(number)),
        Some(number) => integer(number.big().unwrap_or_default()),
        None => Err(failed(format!(
            "bad operand type for unary +: '{}'",
            value.type_name()
        ))),
    }
}

/// `a ~ b ~ …`.
pub(super) fn concatenated(values: &[Value], meter: &Meter) -> Result<Value> {
    let mut out = Output::new(meter)?;
    values.iter().try_for_each(|value| write(value, &mut out))?;
    Value::written(out)
}
