"""Which frames of an archive are hard, as its tables tell: what is rare, what flickers, what is doubtful.

Each is 0 to 1, and each is turned into its rank among the frames that are asked for, what is equal alike, so that none
outweighs the others by its scale; frames are in order of the sum of their ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from engines.errors import SourceError
from pipeline.archive.columns import column
from pipeline.archive.find.query import Query, query_of
from pipeline.archive.reading import Archive
from pipeline.archive.terms import Terms

SEEN = 0.001
"""Share of the picture from which on a class is in it, where no box can tell: less are specks."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A frame that may be exported.

    Attributes:
        clip: its id.
        frame: its number in the clip.
        seconds: since the clip's first frame.
        time: of it, UTC; None where that is not known.
        camera, path: which camera took the clip, and where that is.
        trip: to which the clip belongs; None where its time is not known.
        rare: 1 less the share of the archive's frames that have the rarest class of this one.
        flicker: the share of the picture that has another class than before and behind it, as far as areas tell, or the
            share of its boxes whose objects are seen in this look alone, whichever is larger; 0 for the first and the
            last look at a clip.
        doubt: 1 less the mean score of its boxes; 0 without any.
    """

    clip: str
    frame: int
    seconds: float
    time: datetime | None
    camera: str
    path: str
    trip: str | None
    rare: float
    flicker: float
    doubt: float


_RANKED = """
WITH present AS (SELECT f.clip, f.frame, {present} FROM frames f),
common AS (SELECT {common} FROM present),
looks AS (
  SELECT f.clip, f.frame, row_number() OVER w = 1 OR lead(f.frame) OVER w IS NULL AS edge,
    coalesce(({jumps}) / 2, 0) AS jump
  FROM frames f WINDOW w AS (PARTITION BY f.clip ORDER BY f.frame)
),
glimpsed AS (
  SELECT clip, origin, track FROM objects WHERE track IS NOT NULL GROUP BY clip, origin, track HAVING count(*) = 1
),
boxed AS (
  SELECT o.clip, o.frame, 1 - avg(o.score) AS doubt, avg(CASE WHEN g.track IS NULL THEN 0 ELSE 1 END) AS glimpses
  FROM objects o LEFT JOIN glimpsed g ON o.clip = g.clip AND o.origin = g.origin AND o.track = g.track
  GROUP BY o.clip, o.frame
),
told AS (
  SELECT p.clip, p.frame, round(1 - least({rarest}, 1), 6) AS rare,
    round(CASE WHEN l.edge THEN 0 ELSE greatest(l.jump, coalesce(b.glimpses, 0)) END, 6) AS flicker,
    round(coalesce(b.doubt, 0), 6) AS doubt
  FROM present p CROSS JOIN common m JOIN looks l ON p.clip = l.clip AND p.frame = l.frame
  LEFT JOIN boxed b ON p.clip = b.clip AND p.frame = b.frame
),
asked AS (
  SELECT f.clip, f.frame, f.seconds, f.time, c.camera, c.path, c.trip, t.rare, t.flicker, t.doubt
  FROM frames f JOIN clips c ON f.clip = c.clip JOIN told t ON f.clip = t.clip AND f.frame = t.frame
  WHERE {condition}
),
scored AS (
  SELECT *, rank() OVER (ORDER BY rare) + rank() OVER (ORDER BY flicker) + rank() OVER (ORDER BY doubt) AS score
  FROM asked
)
SELECT clip, frame, seconds, time, camera, path, trip, rare, flicker, doubt, count(*) OVER () AS asked FROM scored
QUALIFY row_number() OVER (PARTITION BY clip ORDER BY score DESC, frame) <= ?
ORDER BY score DESC, clip, frame
"""


def ranked(archive: Archive, where: str | None, per_clip: int) -> tuple[list[Candidate], int]:
    """Frames of an archive, the hardest first, and of how many they were chosen.

    Args:
        archive: the archive.
        where: an expression that is true of them, as `find` has it; None for all.
        per_clip: how many of one clip at most.

    Raises:
        UsageError: it is no expression, or has a name that nobody knows.
        SourceError: a table is damaged, or the expression is true of no frame.
    """
    query = Query("TRUE") if where is None else query_of(where, archive.terms, archive.kinds, archive.notes)
    sql = _RANKED.format(condition=query.sql, **_expressions(archive.terms))
    rows = archive.rows(sql, (*query.values, per_clip))
    if not rows:
        asked = "has no frame" if where is None else f"has no frame of which {where!r} is true"
        raise SourceError(f"{archive.path} {asked}; nothing is written")
    return [Candidate(*row[:-1]) for row in rows], rows[0][-1]


def _expressions(terms: Terms) -> dict[str, str]:
    """What is asked of each class, as SQL."""
    things = list(dict.fromkeys(column(name) for name in terms.things))
    areas = list(dict.fromkeys(column(name) for name in terms.areas))
    present = {name: f'coalesce(f."count_{name}", 0) > 0' for name in things}
    present |= {name: f'coalesce(f."area_{name}", 0) >= {SEEN}' for name in areas if name not in present}
    jumps = [f"abs({_of(name)} - (lag({_of(name)}) OVER w + lead({_of(name)}) OVER w) / 2)" for name in areas]
    return {
        "present": ", ".join(f'({test}) AS "has_{name}"' for name, test in present.items()),
        "common": ", ".join(f'avg(CASE WHEN "has_{name}" THEN 1 ELSE 0 END) AS "share_{name}"' for name in present),
        "rarest": ", ".join(f'CASE WHEN p."has_{name}" THEN m."share_{name}" ELSE 1 END' for name in present),
        "jumps": " + ".join(jumps) or "0",
    }


def _of(name: str) -> str:
    return f'coalesce(f."area_{name}", 0)'
