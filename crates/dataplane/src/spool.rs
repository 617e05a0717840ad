//! A request body on disk: a file without a name, counted against what all of a route may hold.
//!
//! Files are written and read on the threads for blocking work, so that a slow disk makes one request wait and no
//! shard.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;

use model::reason::Reason;

use crate::share::Share;

/// Most bytes written or read at once.
const PIECE: usize = 256 * 1024;

/// The file of one body.
#[derive(Debug)]
pub(crate) struct Spool {
    file: Arc<File>,
    /// What it takes of the disk: its length.
    share: Share,
}

impl Spool {
    /// A new file in the directory of temporary files, that grows as far as its share can.
    pub(crate) async fn create(share: Share, name: u64) -> Result<Self, Reason> {
        let file = blocking(move || {
            let path = std::env::temp_dir().join(format!("evenkeel-{}-{name:016x}", std::process::id()));
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            // Without a name it is gone with its last descriptor, whatever becomes of us.
            std::fs::remove_file(&path)?;
            Ok(file)
        });
        Ok(Self {
            file: Arc::new(file.await?),
            share,
        })
    }

    /// Appends.
    ///
    /// # Errors
    /// [`Reason::BufferFull`], or [`Reason::LocalResources`] for a disk that cannot be written.
    pub(crate) async fn append(&mut self, data: Vec<u8>) -> Result<(), Reason> {
        let (file, at) = (self.file.clone(), self.share.bytes());
        if !self.share.take(data.len() as u64) {
            return Err(Reason::BufferFull);
        }
        // The bytes come back to be freed where they were made: an allocator keeps for each thread what others free.
        let written = blocking(move || file.write_all_at(&data, at).map(|()| data));
        written.await.map(drop)
    }

    /// The bytes from `at` on, as many as one read takes; none at the end.
    pub(crate) async fn read(&self, at: u64) -> Result<Vec<u8>, Reason> {
        let left = usize::try_from(self.share.bytes().saturating_sub(at)).unwrap_or(usize::MAX);
        let file = self.file.clone();
        let mut piece = vec![0; left.min(PIECE)];
        blocking(move || {
            file.read_exact_at(&mut piece, at)?;
            Ok(piece)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Reason> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Reason::LocalResources)?.map_err(|error| {
        tracing::warn!(%error, "a request body could not be kept on disk");
        Reason::LocalResources
    })
}
