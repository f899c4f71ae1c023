// GELU (Hendrycks and Gimpel, "Gaussian error linear units", 2016) and its derivative, in both forms.

// The tanh form, 0.5 x (1 + tanh(u)) with u = sqrt(2 / pi) (x + 0.044715 x^3), written as x sigmoid(2 u): drivers' tanh
// overflows, while this exponent is clamped, and nothing cancels for negative x.
fn gelu_tanh(x: f32) -> f32 {
    return x / (1.0 + exp(clamp(-1.5957691216057308 * (x + 0.044715 * x * x * x), -80.0, 80.0)));
}

// Beyond 10 the derivative is 0 or 1 to the last bit.
fn gelu_tanh_derivative(at: f32) -> f32 {
    let x = clamp(at, -10.0, 10.0);
    let e = exp(clamp(-1.5957691216057308 * (x + 0.044715 * x * x * x), -80.0, 80.0));
    let s = 1.0 / (1.0 + e);
    return s + x * s * (e * s) * (1.5957691216057308 * (1.0 + 0.134145 * x * x));
}

// The error function: the rational minimax approximation of Eigen (generic_fast_erf_float) and XLA (EmitErfF32).
// Odd in x, so it is accurate near 0 too: absolute and relative error are below 4.5e-7.
fn erf(at: f32) -> f32 {
    let x = clamp(at, -4.0, 4.0);
    let t = x * x;
    let p = ((((((-2.72614225801306e-10 * t + 2.77068142495902e-08) * t - 2.10102402082508e-06) * t
        - 5.69250639462346e-05) * t - 7.34990630326855e-04) * t - 2.95459980854025e-03) * t - 1.60960333262415e-02);
    let q = ((((-1.45660718464996e-05 * t - 2.13374055278905e-04) * t - 1.68282697438203e-03) * t
        - 7.37332916720468e-03) * t - 1.42647390514189e-02);
    return x * p / q;
}

// The exact form, x Phi(x) = 0.5 x (1 + erf(x / sqrt(2))). Below -4 sqrt(2) it is 0 to 4e-8: where a division is not exact (a
// GPU's need not be), erf may miss -1 by its last bit, which a large x would make much of.
fn gelu_erf(x: f32) -> f32 {
    return select(0.5 * x * (1.0 + erf(0.7071067811865476 * x)), 0.0, x < -5.656854);
}

// Phi(x) + x phi(x). Beyond 10 it is 0 or 1 to the last bit.
fn gelu_erf_derivative(at: f32) -> f32 {
    let x = clamp(at, -10.0, 10.0);
    return 0.5 * (1.0 + erf(0.7071067811865476 * x)) + x * 0.3989422804014327 * exp(-0.5 * x * x);
}
