// A dispatch may need more than 65,535 workgroups, so they are laid out over x and y.
fn group_index(id: vec3<u32>, count: vec3<u32>) -> u32 {
    return id.x + id.y * count.x;
}
