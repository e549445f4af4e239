//! Articles as they are sent and read.

use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::conduit::profiles::Profile;
use crate::db::{self, FromRow, Row};
use crate::digest::sha256;
use crate::input::{Fields, Read};
use crate::time::Moment;

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Article {
    slug: String,
    title: String,
    description: String,
    /// Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// In the order of their bytes.
    tag_list: Vec<String>,
    created_at: Moment,
    updated_at: Moment,
    favorited: bool,
    favorites_count: i64,
    author: Profile,
}

impl FromRow for Article {
    fn from_row(row: &mut Row<'_>) -> db::Result<Self> {
        Ok(Self {
            slug: row.take()?,
            title: row.take()?,
            description: row.take()?,
            body: row.take()?,
            tag_list: serde_json::from_str(&row.take::<String>()?).unwrap_or_default(),
            created_at: row.take()?,
            updated_at: row.take()?,
            favorited: row.take()?,
            favorites_count: row.take()?,
            author: Profile::from_row(row)?,
        })
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ArticleBody {
    pub(super) article: Article,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Articles {
    pub(super) articles: Vec<Article>,
    /// Of all pages.
    pub(super) articles_count: i64,
}

#[derive(Debug, ToSchema)]
pub(super) struct NewArticleBody {
    pub(super) article: NewArticle,
}

impl Read for NewArticleBody {
    fn read(fields: &mut Fields) -> Self {
        Self { article: fields.object("article") }
    }
}

#[derive(Debug, ToSchema)]
pub(super) struct NewArticle {
    /// 1 to 255 characters.
    pub(super) title: String,
    /// 1 to 2,048 characters.
    pub(super) description: String,
    /// 1 to 65,536 characters.
    pub(super) body: String,
    /// At most 20, of 1 to 64 characters.
    #[schema(rename = "tagList", value_type = Option<Vec<String>>)]
    pub(super) tags: Vec<String>,
}

impl Read for NewArticle {
    fn read(fields: &mut Fields) -> Self {
        Self {
            title: fields.text("title", 1..=255),
            description: fields.text("description", 1..=2_048),
            body: fields.text("body", 1..=65_536),
            tags: tags(fields).unwrap_or_default(),
        }
    }
}

#[derive(Debug, ToSchema)]
pub(super) struct ChangesBody {
    pub(super) article: Changes,
}

impl Read for ChangesBody {
    fn read(fields: &mut Fields) -> Self {
        Self { article: fields.object("article") }
    }
}

/// What is absent stays.
#[derive(Debug, ToSchema)]
pub(super) struct Changes {
    pub(super) title: Option<String>,
    pub(super) description: Option<String>,
    pub(super) body: Option<String>,
    #[schema(rename = "tagList")]
    pub(super) tags: Option<Vec<String>>,
}

impl Read for Changes {
    fn read(fields: &mut Fields) -> Self {
        Self {
            title: fields.changed_text("title", 1..=255),
            description: fields.changed_text("description", 1..=2_048),
            body: fields.changed_text("body", 1..=65_536),
            tags: tags(fields),
        }
    }
}

/// Sorted, and each once: so they are stored and shown.
fn tags(fields: &mut Fields) -> Option<Vec<String>> {
    let mut tags = fields.texts("tagList", 20, 1..=64)?;
    tags.sort_unstable();
    tags.dedup();
    Some(tags)
}

/// Tags as the row of their article keeps them.
pub(super) fn tag_list(tags: &[String]) -> String {
    serde_json::Value::from(tags).to_string()
}

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// At least 1; more than 100 acts as 100.
    #[param(default = 20, required = false)]
    pub(super) limit: i64,
    /// How many to pass over.
    #[param(default = 0, required = false)]
    pub(super) offset: i64,
}

impl Read for Page {
    fn read(fields: &mut Fields) -> Self {
        Self {
            limit: fields.integer("limit", 1..=i64::MAX).unwrap_or(20).min(100),
            offset: fields.integer("offset", 0..=i64::MAX).unwrap_or(0),
        }
    }
}

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    pub(super) tag: Option<String>,
    /// Who wrote it.
    pub(super) author: Option<String>,
    /// Who likes it.
    pub(super) favorited: Option<String>,
    #[param(ignore)]
    pub(super) page: Page,
}

impl Filter {
    /// What the cache calls the list of it.
    pub(super) fn cache_name(&self) -> String {
        let Self { tag, author, favorited, page } = self;
        let Page { limit, offset } = page;
        format!("articles:{}", sha256(format!("{limit} {offset} {tag:?} {author:?} {favorited:?}")))
    }
}

impl Read for Filter {
    fn read(fields: &mut Fields) -> Self {
        let mut text = |field| fields.any_text(field, 10_000);
        let (tag, author, favorited) = (text("tag"), text("author"), text("favorited"));
        Self { tag, author, favorited, page: Page::read(fields) }
    }
}
