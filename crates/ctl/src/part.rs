//! A file that appears only once it is complete.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A file that is being written under another name, so that an incomplete file is not mistaken for a complete one. If
/// it is dropped, as by ^C, it is removed.
#[derive(Debug)]
struct Part {
    file: File,
    path: PathBuf,
    is_whole: bool,
}

impl Part {
    fn create(whole: &Path) -> anyhow::Result<Self> {
        let path = whole.with_added_extension("part");
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { file, path, is_whole: false })
    }

    /// Gives it its name.
    fn finish(mut self, whole: &Path) -> anyhow::Result<()> {
        self.file.sync_all().with_context(|| format!("writing {}", self.path.display()))?;
        std::fs::rename(&self.path, whole).with_context(|| format!("naming {}", whole.display()))?;
        self.is_whole = true;
        Ok(())
    }
}

/// Runs `write` with a file that appears only once it is complete, or with standard output if `whole` is none or `-`.
pub(crate) async fn write_whole<T>(
    whole: Option<&Path>,
    write: impl AsyncFnOnce(Box<dyn Write>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let Some(whole) = whole.filter(|path| path.as_os_str() != "-") else {
        return write(Box::new(BufWriter::new(std::io::stdout()))).await;
    };
    let part = Part::create(whole)?;
    let file = part.file.try_clone().with_context(|| format!("writing {}", part.path.display()))?;
    let written = write(Box::new(BufWriter::new(file))).await?;
    part.finish(whole)?;
    Ok(written)
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_whole {
            // It may be gone already.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_only_once_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("all.ndjson");
        let files = || std::fs::read_dir(dir.path()).unwrap().count();
        drop(Part::create(&path).unwrap());
        assert_eq!(files(), 0);
        let part = Part::create(&path).unwrap();
        assert_eq!((path.exists(), files()), (false, 1));
        part.finish(&path).unwrap();
        assert_eq!((path.exists(), files()), (true, 1));
    }
}
