// The logistic function and its kin, to a few units in the last place wherever they are. WGSL promises exp(x) only to
// 3 + 2 |x| such units (its values at -30 and -80 would lose their last two digits) and log near 1 only to 2^-21 absolutely;
// it has no log1p, and (1 + e) - 1, the usual way around that, is what compilers simplify to e.

// exp(-x) for x >= 0, by range reduction (Cody and Waite, "Software manual for the elementary functions", 1980): the driver's
// exp is asked for arguments within ln(2) / 2 of 0. From 87 on it is exp(-87) = 1.6e-38: smaller numbers are denormal, which
// adapters may take for 0.
fn exp_of_negative(x: f32) -> f32 {
    let a = min(x, 87.0);
    let n = round(a * 1.4426950408889634);
    // ln 2 in two parts; n times the first is exact.
    let rest = (a - n * 0.693359375) + n * 2.12194440e-4;
    return exp(-rest) * bitcast<f32>((127u - u32(n)) << 23u);
}

// log(1 + e) for -1/2 <= e <= 1, which is 2 atanh(s) with s = e / (2 + e), |s| <= 1/3: the series up to s^15, whose rest is
// below 2e-9 of it. Nothing cancels, so it is accurate relative to small values too.
fn log_one_plus(e: f32) -> f32 {
    let s = e / (2.0 + e);
    let t = s * s;
    let series = (((((((1.0 / 15.0) * t + 1.0 / 13.0) * t + 1.0 / 11.0) * t + 1.0 / 9.0) * t + 1.0 / 7.0) * t + 0.2) * t
        + 1.0 / 3.0) * t;
    return 2.0 * s + 2.0 * s * series;
}

// log(1 + exp(x))
fn softplus(x: f32) -> f32 { return max(x, 0.0) + log_one_plus(exp_of_negative(abs(x))); }

// 1 / (1 + exp(-x))
fn sigmoid(x: f32) -> f32 {
    let e = exp_of_negative(abs(x));
    return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

// `value`, or `source` if that is a NaN: min and max may drop it, and a diverged model would look healthy. Its bits tell,
// comparisons are optimised away.
fn keep_nan(value: f32, source: f32) -> f32 {
    return select(value, source, (bitcast<u32>(source) & 0x7fffffffu) > 0x7f800000u);
}
