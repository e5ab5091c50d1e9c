//! Makes paths that people type usable for processes with another working folder.

use std::io;
use std::path::{Component, Path, PathBuf};

/// The absolute form of a path, without `..`. As for the system, `..` after a symbolic link is the parent folder of its
/// target.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    let mut out = PathBuf::new();
    for part in std::path::absolute(path)?.components() {
        if part == Component::ParentDir {
            if let Ok(target) = std::fs::canonicalize(&out) {
                out = target;
            }
            out.pop();
        } else {
            out.push(part);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_folder_is_the_one_that_the_system_would_open() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(dir.path()).unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink(root.join("a/b"), root.join("link")).unwrap();
        for (path, expected) in [
            ("a/../new", "new"),
            ("a/./b/../../new/x", "new/x"),
            ("missing/../new", "new"),
            ("link/../new", "a/new"),
        ] {
            assert_eq!(absolute(&root.join(path)).unwrap(), root.join(expected), "{path}");
        }
        assert_eq!(absolute(Path::new("/../..")).unwrap(), Path::new("/"));
        assert!(absolute(Path::new("x")).unwrap().is_absolute());
    }
}
