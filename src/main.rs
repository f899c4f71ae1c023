fn main() {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor { backends: wgpu::Backends::VULKAN, ..wgpu::InstanceDescriptor::new_without_display_handle() });
    for a in pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all())) {
        println!("{:#?}\n{:#?}\n{:#?}\n{:?}", a.get_info(), a.features(), a.limits(), a.cooperative_matrix_properties());
    }
}
