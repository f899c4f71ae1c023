fn main() {
    println!("shaderlm {}", env!("CARGO_PKG_VERSION"));
}
