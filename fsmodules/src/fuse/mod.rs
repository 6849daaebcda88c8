//! The FUSE module: serves mounts from unmodified FUSE programs.

#[derive(Default)]
pub struct FuseModule {}
impl crate::api::Module for FuseModule {
    fn name(&self) -> &'static str {
        "fuse"
    }
    fn summary(&self) -> &'static str {
        "FUSE"
    }
}
