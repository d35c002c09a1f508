/** Korean and English, chosen by the browser's language until the user chooses. */
import i18next from 'i18next';
import { initReactI18next } from 'react-i18next';
import en from './en.json';
import ko from './ko.json';

const LANGUAGE_KEY = 'annotomy.language';
export type Language = 'ko' | 'en';

function initialLanguage(): Language {
  const chosen = localStorage.getItem(LANGUAGE_KEY) ?? navigator.language;
  return chosen.startsWith('ko') ? 'ko' : 'en';
}

export async function setLanguage(language: Language): Promise<void> {
  localStorage.setItem(LANGUAGE_KEY, language);
  document.documentElement.lang = language;
  await i18next.changeLanguage(language);
}

void i18next.use(initReactI18next).init({
  resources: { ko: { translation: ko }, en: { translation: en } },
  lng: initialLanguage(),
  fallbackLng: 'en',
  interpolation: { escapeValue: false },
});
document.documentElement.lang = initialLanguage();
