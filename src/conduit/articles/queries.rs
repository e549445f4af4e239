//! The statements of articles. Each is constant text; a list has one for each way of filtering.

use crate::db::Sql;

/// An article, its author and what the viewer `$1` has to do with both.
macro_rules! articles {
    ($body:literal, $rest:expr) => {
        concat!(
            "SELECT a.slug, a.title, a.description, ",
            $body,
            ", a.tag_list, a.created_at, a.updated_at, \
             EXISTS (SELECT 1 FROM conduit_favorites v WHERE v.user_id = $1 AND v.article_id = a.id), \
             (SELECT count(*) FROM conduit_favorites v WHERE v.article_id = a.id), \
             u.username, u.bio, u.image, \
             EXISTS (SELECT 1 FROM conduit_follows f WHERE f.follower_id = $1 AND f.followee_id = u.id) \
             FROM conduit_articles a JOIN conduit_users u ON u.id = a.author_id WHERE ",
            $rest
        )
    };
}

macro_rules! tag {
    ($n:literal) => {
        concat!("a.id IN (SELECT article_id FROM conduit_article_tags WHERE tag = $", $n, ")")
    };
}

macro_rules! author {
    ($n:literal) => {
        concat!("a.author_id = (SELECT id FROM conduit_users WHERE username = $", $n, ")")
    };
}

macro_rules! favorited {
    ($n:literal) => {
        concat!(
            "a.id IN (SELECT v.article_id FROM conduit_favorites v \
             JOIN conduit_users w ON w.id = v.user_id WHERE w.username = $",
            $n,
            ")"
        )
    };
}

/// A page and the count of all, by the same conditions. A page knows the viewer besides, so its numbers are one higher.
macro_rules! shape {
    ($($condition:ident $of_list:literal $of_count:literal),*; $limit:literal $offset:literal) => {
        Shape {
            list: {
                static LIST: Sql = Sql::select(
                    "conduit_articles",
                    articles!("CAST(NULL AS TEXT)", concat!(
                        $($condition!($of_list), " AND ",)*
                        "a.id > 0 ORDER BY a.id DESC LIMIT $", $limit, " OFFSET $", $offset
                    )),
                );
                &LIST
            },
            count: {
                static COUNT: Sql = Sql::select(
                    "conduit_articles",
                    concat!(
                        "SELECT count(*) FROM conduit_articles a WHERE ",
                        $($condition!($of_count), " AND ",)*
                        "a.id > 0"
                    ),
                );
                &COUNT
            },
        }
    };
}

/// One way of filtering.
pub(super) struct Shape {
    pub(super) list: &'static Sql,
    pub(super) count: &'static Sql,
}

/// The statements for the filters that are there; their values follow in this order.
pub(super) fn shape(tag: bool, author: bool, favorited: bool) -> Shape {
    match (tag, author, favorited) {
        (false, false, false) => shape!(; 2 3),
        (true, false, false) => shape!(tag 2 1; 3 4),
        (false, true, false) => shape!(author 2 1; 3 4),
        (false, false, true) => shape!(favorited 2 1; 3 4),
        (true, true, false) => shape!(tag 2 1, author 3 2; 4 5),
        (true, false, true) => shape!(tag 2 1, favorited 3 2; 4 5),
        (false, true, true) => shape!(author 2 1, favorited 3 2; 4 5),
        (true, true, true) => shape!(tag 2 1, author 3 2, favorited 4 3; 5 6),
    }
}

pub(super) static FEED: Sql = Sql::select(
    "conduit_articles",
    articles!(
        "CAST(NULL AS TEXT)",
        "a.author_id IN (SELECT followee_id FROM conduit_follows WHERE follower_id = $1) \
         ORDER BY a.id DESC LIMIT $2 OFFSET $3"
    ),
);
pub(super) static FEED_COUNT: Sql = Sql::select(
    "conduit_articles",
    "SELECT count(*) FROM conduit_articles a \
     WHERE a.author_id IN (SELECT followee_id FROM conduit_follows WHERE follower_id = $1)",
);
pub(super) static READ: Sql = Sql::select("conduit_articles", articles!("a.body", "a.slug = $2"));
pub(super) static FIND: Sql =
    Sql::select("conduit_articles", "SELECT id, author_id FROM conduit_articles WHERE slug = $1");
pub(super) static CREATE: Sql = Sql::insert(
    "conduit_articles",
    "INSERT INTO conduit_articles \
     (slug, title, description, body, tag_list, author_id, created_at, updated_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING id",
);
/// The slug stays with an unchanged title, and times never go back.
pub(super) static UPDATE: Sql = Sql::update(
    "conduit_articles",
    "UPDATE conduit_articles SET \
     slug = CASE WHEN title = CAST($2 AS TEXT) THEN slug ELSE COALESCE(CAST($1 AS TEXT), slug) END, \
     title = COALESCE(CAST($2 AS TEXT), title), \
     description = COALESCE(CAST($3 AS TEXT), description), \
     body = COALESCE(CAST($4 AS TEXT), body), \
     tag_list = COALESCE(CAST($5 AS TEXT), tag_list), \
     updated_at = CASE WHEN updated_at >= CAST($6 AS BIGINT) THEN updated_at + 1 ELSE $6 END \
     WHERE id = $7 RETURNING slug",
);
pub(super) static REMOVE: Sql =
    Sql::delete("conduit_articles", "DELETE FROM conduit_articles WHERE id = $1");
pub(super) static TAG: Sql = Sql::insert(
    "conduit_article_tags",
    "INSERT INTO conduit_article_tags (tag, article_id) VALUES ($1, $2)",
);
pub(super) static UNTAG: Sql =
    Sql::delete("conduit_article_tags", "DELETE FROM conduit_article_tags WHERE article_id = $1");
pub(super) static FAVORITE: Sql = Sql::insert(
    "conduit_favorites",
    "INSERT INTO conduit_favorites (user_id, article_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
);
pub(super) static UNFAVORITE: Sql = Sql::delete(
    "conduit_favorites",
    "DELETE FROM conduit_favorites WHERE user_id = $1 AND article_id = $2",
);
