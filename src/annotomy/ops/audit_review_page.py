"""The monthly review as one HTML page to read and to print, in Korean and English. It loads nothing and runs nothing."""

import base64
import hashlib
from collections.abc import Iterable
from datetime import datetime
from html import escape
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from annotomy.ops.audit_review import Report, Review

Language = Literal["en", "ko"]

_STYLE = (
    "body{font:14px/1.5 system-ui,'Noto Sans KR','Malgun Gothic',sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;"
    "color:#111;background:#fff}h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}"
    "table{border-collapse:collapse;width:100%}caption{text-align:left;color:#444}th,td{border:1px solid #bbb;"
    "padding:.25rem .5rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}th{background:#eee}"
    ".sign{border:1px solid #111;padding:1rem;margin-top:2rem}thead{display:table-header-group}tr{break-inside:avoid}"
)
POLICY = (
    "default-src 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)

TEXTS: dict[str, tuple[str, str]] = {
    "title": ("Monthly review of the audit", "접속기록 월간 점검 보고서"),
    "period": ("Period", "점검 기간"),
    "records": ("Records", "기록 수"),
    "made": ("Made at", "작성 일시"),
    "hours": ("Office hours", "업무 시간"),
    "digest": ("SHA-256 of the report", "보고서의 SHA-256"),
    "people": ("Who read, downloaded and exported", "사용자별 조회, 다운로드, 내보내기"),
    "patients": ("Whose data was read (by pseudonym)", "정보주체별 조회 내역 (가명)"),
    "off_hours": ("Outside of office hours", "업무 시간 외 접근"),
    "bulk": ("More studies in a day than {bulk}", "하루 {bulk}건을 넘는 대량 조회"),
    "failed_sign_ins": ("Failed sign-ins", "로그인 실패"),
    "rights_changes": ("Changes of accounts, keys, roles and rules", "계정, 키, 역할, 규칙 변경"),
    "exports": ("Exports and downloads with their reasons", "내보내기와 다운로드 사유"),
    "none": ("None.", "없음."),
    "cut": ("Only the first lines are shown; the search has all.", "처음 일부만 표시했습니다. 전체는 검색에서 확인하세요."),
    "signed": ("Reviewed and signed by {by} at {at}", "{by} 님이 {at}에 점검하고 서명함"),
    "unsigned": ("Not yet signed.", "아직 서명되지 않았습니다."),
    "note": ("Note", "점검 의견"),
    "no_reason": ("no reason given", "사유 없음"),
    "actor": ("User", "사용자"),
    "reads": ("Reads", "조회"),
    "downloads": ("Downloads", "다운로드"),
    "exported": ("Exports", "내보내기"),
    "patient_count": ("Patients", "정보주체 수"),
    "study_count": ("Studies", "검사 수"),
    "refused": ("Refused", "거부됨"),
    "patient": ("Pseudonym", "가명"),
    "last_at": ("Last", "마지막"),
    "first_at": ("First", "처음"),
    "day": ("Day", "날짜"),
    "account": ("Account", "계정"),
    "source": ("From", "접속 위치"),
    "attempts": ("Attempts", "횟수"),
    "seq": ("Record", "기록 번호"),
    "at": ("At", "일시"),
    "action": ("Action", "행위"),
    "object": ("Object", "대상"),
    "detail": ("Detail", "내용"),
    "reason": ("Reason", "사유"),
}  # fmt: skip


class _Words:
    """What the page says, in one language and one time zone; everything that it returns is escaped."""

    def __init__(self, report: Report, language: Language) -> None:
        self.place = 0 if language == "en" else 1
        self._zone = ZoneInfo(report.time_zone)
        self._cut = report.cut

    def say(self, name: str, **values: object) -> str:
        return escape(TEXTS[name][self.place].format(**values))

    def time(self, moment: datetime) -> str:
        return moment.astimezone(self._zone).strftime("%Y-%m-%d %H:%M:%S")

    def table(self, name: str, heads: str, rows: Iterable[tuple[object, ...]], **values: object) -> str:
        """`heads` are names of texts; `name` is that of the list, and of its title."""
        body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
        head = "".join(f'<th scope="col">{self.say(one)}</th>' for one in heads.split())
        shown = f"<p>{self.say('none')}</p>"
        if body:
            shown = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        cut = f"<p>{self.say('cut')}</p>" if name in self._cut else ""
        return f"<section><h2>{self.say(name, **values)}</h2>{shown}{cut}</section>"


def page_of(review: Review, language: Language) -> str:
    """Times are told in the report's time zone."""
    assert review.report is not None
    report = review.report
    words = _Words(report, language)
    say, time = words.say, words.time
    signed = say("unsigned")
    if review.signed_at is not None:
        signed = say("signed", by=review.signed_by, at=time(review.signed_at))
        signed += f"<p>{say('note')}: {escape(review.note)}</p>" if review.note else ""
    facts = [
        ("period", f"{time(report.since)} – {time(report.until)} ({report.time_zone})"),
        ("records", report.records),
        ("hours", f"{report.office_hours[0]:02}:00 – {report.office_hours[1]:02}:00"),
        ("made", time(review.made_at)),
        ("digest", review.sha256),
    ]
    summary = "".join(
        f'<tr><th scope="row">{say(name)}</th><td>{escape(str(value))}</td></tr>' for name, value in facts
    )
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
        f"<title>{say('title')} {escape(review.month)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{say('title')} {escape(review.month)}</h1><table>{summary}</table>{''.join(_sections(report, words))}"
        f'<div class="sign">{signed}</div></main></body></html>'
    )


def _sections(report: Report, words: _Words) -> list[str]:
    table, time = words.table, words.time
    no_reason = TEXTS["no_reason"][words.place]
    return [
        table(
            "people",
            "actor reads downloads exported patient_count study_count refused",
            [(p.actor, p.reads, p.downloads, p.exports, p.patients, p.studies, p.refused) for p in report.people],
        ),
        table(
            "exports",
            "seq at actor action object reason",
            [
                (e.seq, time(e.at), e.actor, e.action, _named(e.object), e.reason or no_reason)
                for e in report.exports
            ],
        ),
        table(
            "bulk",
            "day actor study_count patient_count downloads",
            [(b.day, b.actor, b.studies, b.patients, b.downloads) for b in report.bulk],
            bulk=report.bulk_studies,
        ),
        table(
            "off_hours",
            "day actor records patient_count first_at last_at",
            [(o.day, o.actor, o.records, o.patients, time(o.first_at), time(o.last_at)) for o in report.off_hours],
        ),
        table(
            "failed_sign_ins",
            "account source attempts first_at last_at",
            [(f.user_id, f.source, f.attempts, time(f.first_at), time(f.last_at)) for f in report.failed_sign_ins],
        ),
        table(
            "rights_changes",
            "seq at actor action object detail",
            [
                (c.seq, time(c.at), c.actor, c.action, _named(c.object), msgspec.json.encode(c.detail).decode())
                for c in report.rights_changes
            ],
        ),
        table(
            "patients",
            "actor patient reads downloads last_at",
            [(a.actor, a.patient, a.reads, a.downloads, time(a.last_at)) for a in report.patients],
        ),
    ]  # fmt: skip


def _named(what: dict[str, str]) -> str:
    return f"{what['kind']} {what['id']}"
