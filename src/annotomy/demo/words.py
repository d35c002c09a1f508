"""What the demo says at the terminal, in English and Korean."""

from typing import Literal

Language = Literal["en", "ko"]

_WORDS: dict[str, tuple[str, str]] = {
    "starting": ("Starting the server ...", "서버를 시작합니다 ..."),
    "answering": ("The server answers on {address}", "서버가 {address} 에서 응답합니다"),
    "loading": ("Loading {name}", "{name} 을(를) 올리는 중"),
    "loaded": (
        "Loaded {count} studies into the project {project}",
        "검사 {count}건을 프로젝트 {project} 에 넣었습니다",
    ),
    "there": (
        "The {count} sample studies are there from an earlier start",
        "예제 검사 {count}건은 이전에 넣은 것이 있습니다",
    ),
    "asked": ("Asked the model {model} to segment the head", "모델 {model} 에 머리 분할을 요청했습니다"),
    "reused": (
        "The result of the model {model} is there from an earlier start",
        "모델 {model} 의 결과는 이전에 만든 것이 있습니다",
    ),
    "running": ("{model}: {state} {percent} %", "{model}: {state} {percent} %"),
    "succeeded": ("The model {model} is done", "모델 {model} 이(가) 끝났습니다"),
    "checking": ("Checking the result of the model {model}", "모델 {model} 의 결과를 확인하는 중"),
    "checked": ("The results are checked", "결과를 확인했습니다"),
    "failed": ("The demo failed: {reason}", "데모가 실패했습니다: {reason}"),
    "address": ("Address", "주소"),
    "login": ("Login", "로그인"),
    "generated": (
        "{username} / {password}   (shown only this once)",
        "{username} / {password}   (이번 한 번만 표시됩니다)",
    ),
    "given": (
        "{username} / the password of ANNOTOMY_ADMIN_PASSWORD",
        "{username} / ANNOTOMY_ADMIN_PASSWORD 의 비밀번호",
    ),
    "known": (
        "{username} / the password shown at the first start; a new one:",
        "{username} / 처음 시작할 때 표시된 비밀번호. 새로 정하려면:",
    ),
    "studies": ("Studies", "검사"),
    "segmentations": ("Results", "결과"),
    "pictures": ("Pictures", "그림"),
    "in_project": ("{count} in the project {project}", "프로젝트 {project} 에 {count}건"),
    "head_study": ("open the head", "머리 영상 열기"),
    "in_ohif": ("in OHIF", "OHIF로 열기"),
    "brain": (
        "brain {volume} mL, Dice {dice} against nilearn's MNI152 brain mask (at least {least} was due)",
        "뇌 {volume} mL, nilearn의 MNI152 뇌 마스크와 Dice {dice} (기준 {least} 이상)",
    ),
    "hippocampi": (
        "hippocampus right {right} mL, left {left} mL; experts' masks of one have {low} to {high} mL",
        "해마 오른쪽 {right} mL, 왼쪽 {left} mL. 전문가 마스크 한쪽의 범위는 {low}~{high} mL",
    ),
    "seg": ("DICOM SEG", "DICOM SEG"),
    "summary": ("Summary", "요약"),
    "stop": ("Ctrl-C stops it. The data stays in {folder}", "Ctrl-C로 멈춥니다. 데이터는 {folder} 에 남습니다"),
    "again": (
        "Done. ./run demo starts it again with all of this; the data is in {folder}",
        "끝났습니다. ./run demo 로 다시 시작하면 모두 그대로 있습니다. 데이터: {folder}",
    ),
}


KEYS = sorted(_WORDS)


def sentences(key: str) -> tuple[str, str]:
    """English and Korean, with the names of their figures."""
    return _WORDS[key]


def say(language: str, key: str, **figures: object) -> str:
    """The sentence of this key with its figures filled in."""
    english, korean = sentences(key)
    return (korean if language == "ko" else english).format(**figures)
